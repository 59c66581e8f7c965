"""The runner of runbooks does what a careful operator does: every block in order, and stops at the first that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runbooks import runner


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runner, "RUNBOOKS", tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path / "book.md"


def run(book: Path, **environ: str) -> runner.Ran:
    return runner.run("book", book.parent / "data", environ, timeout_s=20)


def test_blocks_run_in_one_shell_in_order_and_see_the_cluster(book: Path) -> None:
    book.write_text(
        "# Book\n```sh\nword=one\n```\ntext\n```sh no-run\nexit 9\n```\n```json\n{}\n```\n"
        '```sh\necho "$word $MESHLOG_DATA_DIR $GIVEN"\n```\n'
    )
    assert run(book, GIVEN="two").stdout == f"one {book.parent / 'data'} two\n"


@pytest.mark.parametrize(
    "block", ["```sh\nfalse\necho after\n```", "```sh\nfalse | cat\n```", "```sh exit=7\nfalse\n```"]
)
def test_a_command_that_fails_ends_the_runbook_and_names_its_line(book: Path, block: str) -> None:
    book.write_text(f"first\n\n{block}\n")
    with pytest.raises(AssertionError, match=r"book\.md:3"):
        run(book)


def test_an_exit_code_may_be_asked_for(book: Path) -> None:
    book.write_text("```sh exit=7\necho one; (exit 7)\n```\n```sh\necho two\n```\n")
    assert run(book).stdout == "one\ntwo\n"


def test_a_tag_that_means_nothing_is_refused() -> None:
    with pytest.raises(AssertionError, match="line 1"):
        runner.blocks("```sh norun\nls\n```\n")
