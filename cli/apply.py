"""`meshlog apply`, `delete` and `diff -f`: manifests made true, taken away, or compared with what is there.

Everything is read, checked and planned before anything is changed; the plan is shown, and asked about on a terminal.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import rich_click as click

from cli.applying import Outcome, Runner
from cli.client import ApiClient, find_target
from cli.differences import changes_text
from cli.layout import Layout
from cli.live_meshes import caller_account, surroundings
from cli.manifest_files import Given, manifest_options, pairs, read_files
from cli.options import data_dir_option, endpoint_options, split_mesh
from cli.output import columns, interactive, note, output_option, print_data
from manifests.document import Manifest, Problem, Reading
from manifests.formats import parse
from manifests.live import names_by_kind
from manifests.plan import (
    CREATE,
    DELETE,
    PRUNED,
    TAG,
    UPDATE,
    Plan,
    Prune,
    Step,
    Surroundings,
    plan_apply,
    plan_delete,
)
from mesh.errors import BadRequest, SettingsError
from mesh.kinds import MESH
from runtime.clock import SystemClock, SystemEntropy

Function = TypeVar("Function", bound=Callable[..., Any])

DIFFERENT, FAILED, INTERRUPTED = 3, 1, 130
_DONE = {CREATE: "created", UPDATE: "changed", TAG: "tagged", DELETE: "deleted"}
_PLANNED = {CREATE: "to create", UPDATE: "to change", TAG: "to tag", DELETE: "to delete"}
_TITLES = {"resource": "RESOURCE", "result": "RESULT", "source": "SOURCE"}
_FORMATS = ("table", "json", "yaml", "name", "diff")


@dataclass(frozen=True, slots=True)
class Manner:
    """How a plan is carried out, as the user asked."""

    dry_run: bool
    keep_going: bool
    yes: bool
    output: str


def _manner_options(function: Function) -> Function:
    """The options of a `Manner`, given to the command as keywords of its."""
    for option in (
        output_option(*_FORMATS),
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        click.option("--keep-going", is_flag=True, help="Do what can be done, even if something else cannot."),
        click.option("--dry-run", is_flag=True, help="Only show what would be done."),
    ):
        function = option(function)
    return function


@click.command()
@manifest_options
@data_dir_option
@endpoint_options
@click.option("--prune", is_flag=True, help="Delete what is in no file, in every mesh whose own document is in one.")
@click.option("--prune-mesh", metavar="NAME", multiple=True, help="Prune in this mesh too.  Can be repeated.")
@click.option("--prune-tag", metavar="KEY=VALUE", multiple=True, help="Prune only what has this tag.  Can be repeated.")
@_manner_options
def apply(
    layout: Layout,
    *,
    given: Given,
    endpoint: str | None,
    prune: bool,
    prune_mesh: tuple[str, ...],
    prune_tag: tuple[str, ...],
    **manner: Any,
) -> int:
    """Make meshes what the files say: App Mesh JSON, Kubernetes custom resources, CloudFormation templates.

    Shows what it will do, then does it in an order in which nothing is ever missing. What is as it shall be is left
    alone, so the same files can be applied again. One document that is wrong, and nothing is changed.
    """
    tags = pairs("--prune-tag", prune_tag)
    with _session(layout, given, endpoint, prune_mesh) as session:
        scope = _prune(session, prune_mesh, tags) if prune or prune_mesh else None
        return _carry_out(session, plan_apply(session.manifest, session.around, scope), Manner(**manner))


@click.command()
@manifest_options
@data_dir_option
@endpoint_options
@_manner_options
def delete(layout: Layout, *, given: Given, endpoint: str | None, **manner: Any) -> int:
    """Delete what the files have, users before what they use. What is not there any more is not missed."""
    with _session(layout, given, endpoint, names_only=True) as session:
        return _carry_out(session, plan_delete(session.manifest, session.around), Manner(**manner))


def diff_files(layout: Layout, given: Given, endpoint: str | None, output: str) -> int:
    """What `apply` would change, as a diff; 3 if anything."""
    with _session(layout, given, endpoint) as session:
        plan = plan_apply(session.manifest, session.around)
    _tell_skipped(plan)
    _refuse(plan.problems)
    if plan.steps or output in ("json", "yaml"):
        _print(plan.steps, plan, output, _PLANNED)
    else:
        note("nothing differs")
    return DIFFERENT if plan.steps else 0


@dataclass(frozen=True, slots=True)
class _Session:
    """One run: the cluster, who calls it, what the files say and what is there."""

    client: ApiClient
    reading: Reading
    manifest: Manifest
    around: Surroundings


@contextmanager
def _session(
    layout: Layout, given: Given, endpoint: str | None, meshes: Iterable[str] = (), *, names_only: bool = False
) -> Iterator[_Session]:
    """`meshes`: names of the caller's own that are looked at although no file is about them."""
    files = read_files(given)  # before anybody is called
    mesh, owner = split_mesh(given.mesh or "")
    target = find_target(layout, os.environ, endpoint=endpoint)
    reading = Reading(
        account=caller_account(target),
        region=target.key.region,
        mesh=mesh or None,
        mesh_owner=owner.get("account"),
        gateway=given.gateway,
        namespace=given.namespace,
        parameters=given.parameters,
        imports=given.imports,
        stack=given.stack,
        names_only=names_only,
    )
    manifest = parse(files, reading)
    if not manifest.resources and not manifest.problems:
        for skipped in manifest.skipped:
            note(f"skipped {skipped.source}: {skipped.what}: {skipped.why}")
        raise BadRequest(f"there is no App Mesh resource in {', '.join(given.files)}")
    homes = {item.key(reading.account)[:2] for item in manifest.resources}
    homes |= {(reading.account, mesh) for mesh in meshes}
    with ApiClient(target) as client:
        around = surroundings(client, reading, homes)
        # Once more, for references to what is in no file but there.
        manifest = parse(files, replace(reading, live=names_by_kind(around.live)))
        yield _Session(client, reading, manifest, around)


def _prune(session: _Session, named: Iterable[str], tags: dict[str, str]) -> Prune:
    account = session.reading.account
    whole = {item.key(account)[:2] for item in session.manifest.resources if item.kind == MESH.name}
    homes = whole | {(account, mesh) for mesh in named}
    if not homes:
        raise SettingsError(
            "--prune has to know of which mesh the files are all there is: have the mesh's own document among them, or "
            "name it with --prune-mesh"
        )
    return Prune(frozenset(homes), tags)


def _carry_out(session: _Session, plan: Plan, manner: Manner) -> int:
    _tell_skipped(plan)
    if manner.keep_going:
        for problem in plan.problems:
            note(f"left out: {problem}")
    else:
        _refuse(plan.problems)
    if manner.dry_run or not plan.steps:
        _print(plan.steps, plan, manner.output, _PLANNED)
        note(_summary(plan.steps, plan, _PLANNED))
        return FAILED if plan.problems else 0
    _agree(plan, manner)
    with _progress(len(plan.steps)) as told:
        runner = Runner(session.client, session.reading, SystemClock(), SystemEntropy())
        outcome = runner.run(plan.steps, keep_going=manner.keep_going, told=told)
    _print(outcome.done, plan, manner.output, _DONE)
    note(_summary(outcome.done, plan, _DONE))
    _tell_undo(session, outcome)
    return _code(plan, outcome)


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        told = "".join(f"\n  {problem}" for problem in problems)
        raise BadRequest(f"nothing was changed, since part of it cannot be done (the rest can, by --keep-going):{told}")


def _agree(plan: Plan, manner: Manner) -> None:
    """Show what will be done, and ask; where nobody can answer, what is pruned needs a word."""
    note(columns(_rows(plan.steps, _PLANNED), _TITLES))
    if manner.yes:
        return
    if interactive():
        click.confirm(f"{_summary(plan.steps, plan, _PLANNED)}. Go on?", abort=True, err=True)
    elif any(step.why == PRUNED for step in plan.steps):
        raise SettingsError("--prune deletes, and there is no terminal to ask on: say --yes, or look with --dry-run")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Step], None]]:
    """A bar on a terminal; elsewhere nothing."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    console = Console(stderr=True)
    parts = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*parts, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda step: bar.update(task, advance=1, description=step.key.path)


def _code(plan: Plan, outcome: Outcome) -> int:
    for step, error in outcome.failed:
        note(f"failed: {step.source or 'pruning'}: {step.key.path}: {error.message}")
    if not outcome.failed and not outcome.interrupted:
        return FAILED if plan.problems else 0
    missing = len(plan.steps) - len(outcome.done)
    note(f"{missing} of {len(plan.steps)} changes were not made: mend what failed, and run this again")
    if outcome.interrupted:
        return INTERRUPTED
    return outcome.failed[0][1].exit_code


def _tell_skipped(plan: Plan) -> None:
    for skipped in plan.skipped:
        note(f"skipped {skipped.source}: {skipped.what}: {skipped.why}")


def _tell_undo(session: _Session, outcome: Outcome) -> None:
    meshes = {step.key.mesh for step in outcome.done if step.key.account == session.reading.account}
    if outcome.first is not None:
        for mesh in sorted(meshes):
            note(f"to undo it: meshlog rollback --mesh {mesh} --before {outcome.first}")


def _summary(steps: Sequence[Step], plan: Plan, words: Mapping[str, str]) -> str:
    counts = Counter(words[step.action] for step in steps)
    told = [f"{counts[word]} {word}" for word in words.values() if counts[word]]
    told += [f"{len(plan.unchanged)} as they shall be"] if plan.unchanged else []
    told += [f"{len(plan.left)} left, as their documents say"] if plan.left else []
    return ", ".join(told) or "nothing to do"


def _rows(steps: Sequence[Step], words: Mapping[str, str]) -> list[dict[str, object]]:
    return [
        {
            "resource": step.key.path,
            "result": words[step.action],
            "source": " ".join(filter(None, [step.source, step.why])),
        }
        for step in steps
    ]


def _print(steps: Sequence[Step], plan: Plan, output: str, words: Mapping[str, str]) -> None:
    changes = [step.document() | {"source": step.source, "why": step.why} for step in steps]
    document = {
        "changes": changes,
        "unchanged": [key.path for key in plan.unchanged],
        "left": [key.path for key in plan.left],
        "skipped": [asdict(skipped) for skipped in plan.skipped],
        "problems": [asdict(problem) for problem in plan.problems],
    }
    if not steps and output not in ("json", "yaml"):
        return
    text = (
        (lambda: changes_text(changes, "now", "as the files say"))
        if output == "diff"
        else (lambda: columns(_rows(steps, words), _TITLES))
    )
    print_data(document, output, text, lambda: [step.key.path for step in steps])
