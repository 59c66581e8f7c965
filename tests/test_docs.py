"""What the documents tell a reader to type, and where they send him, is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.main import root

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "deploy").glob("*.md")]
)
_FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_TYPED = re.compile(r"(?<![\w/.-])meshlog ((?:--?|[a-z]).*)")
_OPTION = re.compile(r"(?<!\S)(--[a-z][a-z-]*|-[a-zA-Z])(?=[\s=]|$)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def commands(document: str) -> Iterator[str]:
    """Each `meshlog …` of a document's code, on one line, without the remarks beside it."""
    fenced = [block for block in _FENCED.findall(document) if not block.lstrip().startswith("```mermaid")]
    spans = _CODE.findall(_FENCED.sub("", document))
    for code in [*(line for block in fenced for line in block.replace("\\\n", " ").splitlines()), *spans]:
        found = _TYPED.search(re.split(r"(?:^|\s)#\s", " ".join(code.split("\n")))[0])
        if found:
            yield re.split(r"\s{2,}(?![-\s])|[|;&)]", found[1])[0]


def resolved(words: list[str]) -> click.Command:
    """The command that the first words name; a word that no group has is an argument."""
    command: click.Command = root
    context = click.Context(root)
    for word in words:
        if not isinstance(command, click.Group):
            break
        if command is root:
            name, found, _rest = root.resolve_command(context, [word])
        else:
            name, found = word, command.get_command(context, word)
        assert found is not None, f"there is no command {word} in meshlog {' '.join(words)}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    return command


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_commands_and_options_exist(document: Path) -> None:
    for typed in commands(document.read_text(encoding="utf-8")):
        words = [word for word in typed.split() if not word.startswith("-")]
        command = resolved([word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)] if words else [])
        known = {option for one in (command, root) for parameter in one.params for option in parameter.opts}
        known |= {option for parameter in command.params for option in parameter.secondary_opts} | {"--help", "-h"}
        unknown = set(_OPTION.findall(typed)) - known
        assert not unknown, f"meshlog {typed}: no option {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(_FENCED.sub("", document.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            headings = _HEADING.findall(target.read_text(encoding="utf-8"))
            assert anchor in {re.sub(r"[^\w\s-]", "", text.lower()).strip().replace(" ", "-") for text in headings}, (
                link
            )
