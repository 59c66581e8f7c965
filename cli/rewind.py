"""`meshlog diff` and `meshlog rollback`: what differs between two moments, and a mesh taken back to one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import rich_click as click

from cli.client import ApiClient, Target, find_target
from cli.differences import changes_table, changes_text, moment_text
from cli.layout import Layout
from cli.manifest_files import Given, manifest_options
from cli.moments import Moment
from cli.options import checked_node, data_dir_option, endpoint_options, read_moment, split_mesh
from cli.output import interactive, note, output_option, print_data
from mesh.errors import Conflict, SettingsError
from runtime.clock import SystemEntropy

DIFFERENT = 3
"""The exit code of a diff that has something to show."""
_DIFF, _ROLLBACK = "/meshlog/v1/diff", "/meshlog/v1/rollback"


@click.command()
@click.argument("a", metavar="[A", required=False)
@click.argument("b", metavar="[B]]", default="now")
@manifest_options(required=False, mesh_help="Only this mesh; with -f, that of documents that name none.")
@data_dir_option
@endpoint_options
@click.option("--xds", is_flag=True, help="Compare what the Envoys of a --node are given.")
@click.option("--node", metavar="mesh/<mesh>/virtualGateway|virtualNode/<name>", help="The node, with --xds.")
@output_option("diff", "table", "json", "yaml", "name")
def diff(
    layout: Layout,
    *,
    given: Given,
    endpoint: str | None,
    a: str | None,
    b: str,
    xds: bool,
    node: str | None,
    output: str,
) -> int:
    """Show what differs between two moments, who changed it last, and when; or, with -f, what `apply` would change.

    A moment is a time (2026-11-22T10:42, 10:42, 'yesterday 10:42', '2h ago') or a position of the log (42, 1.42); the
    state compared is the one right after it. B is now if it is left out. Exits with 3 if anything differs, with 0 if
    nothing does.
    """
    if given.files:
        from cli.apply import diff_files  # noqa: PLC0415  (what reads manifests is not needed to look back)

        if a is not None or xds:
            raise SettingsError("-f compares files with what there is now: leave out the moments, and --xds")
        return diff_files(layout, given, endpoint, output)
    if a is None:
        raise SettingsError("say what to compare: one moment or two, or files with -f")
    if xds != (node is not None):
        raise SettingsError("--xds and --node go together: name the node whose Envoys' configuration to compare")
    node = checked_node(node, "--node") if node is not None else None
    query = {"from": read_moment(a).wire}
    to = read_moment(b)
    query |= {} if to.is_now else {"to": to.wire}
    with ApiClient(find_target(layout, os.environ, endpoint=endpoint)) as client:
        if node is not None:
            answer = client.get(f"{_DIFF}/xds", query | {"node": node})
        else:
            name, owner = split_mesh(given.mesh or "")
            answer = _all_changes(client, query | ({"mesh": name, **owner} if name else {}))
    before, after, changes = answer["from"], answer["to"], answer["changes"]
    note(f"from {moment_text(before)} to {moment_text(after)}")
    document = {"from": before, "to": after, "changes": changes}
    if changes or output in ("json", "yaml"):
        names = [change["resource"] for change in changes]
        print_data(document, output, lambda: _text(document, output), lambda: names)
    else:
        note("nothing differs")
    return DIFFERENT if changes else 0


@click.command()
@data_dir_option
@endpoint_options
@click.option("--mesh", "-m", required=True, help="The mesh to take back; NAME@ACCOUNT for another account's.")
@click.option("--to", metavar="WHEN", help="The state at this time, or right after this position.")
@click.option("--before", metavar="POSITION", help="The state right before this event.")
@click.option(
    "--only",
    metavar="KIND/NAME",
    multiple=True,
    help="Only this resource: virtualNode/x, route/<router>/x, gatewayRoute/<gateway>/x.  Can be repeated.",
)
@click.option("--own", is_flag=True, help="Only what your account made, in a mesh that is shared.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--allow-mesh-deletion", is_flag=True, help="Go back to before the mesh existed: all of it goes.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@output_option("diff", "table", "json", "yaml")
def rollback(
    layout: Layout,
    *,
    endpoint: str | None,
    mesh: str,
    to: str | None,
    before: str | None,
    only: tuple[str, ...],
    own: bool,
    dry_run: bool,
    allow_mesh_deletion: bool,
    yes: bool,
    output: str,
) -> None:
    """Give a mesh, or some of its resources, the specs and tags that they had at a moment.

    Shows what would change and asks. This is a change like any other: history stays, and a rollback can be rolled back.
    """
    if (to is None) == (before is None):
        raise SettingsError("say where to go back to: --to WHEN, or --before POSITION")
    moment = _target(to, before)
    if not (dry_run or yes or interactive()):
        raise SettingsError("there is no terminal to ask on: say --yes to go on, or --dry-run to look first")
    name, owner = split_mesh(mesh)
    body: dict[str, Any] = {"mesh": name, **owner, "allow_mesh_deletion": allow_mesh_deletion}
    body |= {"own": True} if own else {}
    body |= {"only": list(only)} if only else {}
    where = {"before" if before else "to": moment.wire}
    target = find_target(layout, os.environ, endpoint=endpoint)
    if dry_run or not yes:
        plan = _post(target, body | where | {"dry_run": True})
        _show(plan, mesh, output, to_stdout=dry_run)
        if dry_run or not plan["changes"]:
            return
        click.confirm(f"Take {_what(mesh, only)} back to {moment_text(plan['to'])}?", abort=True, err=True)
        where = {"to": f"{plan['to']['epoch']}.{plan['to']['position']}", "seen": plan["seen"]}
    done = _post(target, body | where | {"clientToken": SystemEntropy().uuid()})
    print_data(done, output, lambda: changes_table(done["changes"]), list)
    if done["position"] is not None:
        at = done["position"]
        note(f"done at position {at}; to undo it: meshlog rollback --mesh {mesh} --before {at}")


def _target(to: str | None, before: str | None) -> Moment:
    if to is not None:
        return read_moment(to)
    moment = read_moment(before or "")
    if moment.time_us is not None:
        raise SettingsError(
            f"--before '{before}' is not a log position: name an event, such as 42, as `meshlog log` does"
        )
    return moment


def _show(plan: Mapping[str, Any], mesh: str, output: str, *, to_stdout: bool) -> None:
    """What a rollback would do; Conflict, with every reason and what would help, if it cannot be done."""
    if plan["refused"]:
        reasons = "".join(f"\n  {reason}" for reason in plan["refused"])
        needs = "".join(f" --only {name}" for name in plan["needs"])
        hint = f"\nname what is needed too:{needs}" if needs else ""
        raise Conflict(f"nothing was changed, since part of it is refused:{reasons}{hint}")
    if any(change["resource"] == f"mesh/{mesh}" and change["change"] == "deleted" for change in plan["changes"]):
        note(f"this takes the whole mesh {mesh} away; the real thing needs --allow-mesh-deletion")
    where = moment_text(plan["to"])
    if to_stdout:
        print_data(dict(plan), output, lambda: _plan_text(plan, output, where), list)
    else:
        note(_plan_text(plan, output, where))


def _plan_text(plan: Mapping[str, Any], output: str, where: str) -> str:
    changes = plan["changes"]
    if output == "table" or not changes:
        return changes_table(changes, "would be ")
    return changes_text(changes, "now", f"as of {where}")


def _text(document: Mapping[str, Any], output: str) -> str:
    if output == "table":
        return changes_table(document["changes"])
    return changes_text(document["changes"], moment_text(document["from"]), moment_text(document["to"]))


def _all_changes(client: ApiClient, query: Mapping[str, str]) -> dict[str, Any]:
    answer = client.get(_DIFF, query)
    whole = answer
    while answer["next"]:
        pinned = {side: f"{answer[side]['epoch']}.{answer[side]['position']}" for side in ("from", "to")}
        answer = client.get(_DIFF, {**query, **pinned, "after": answer["next"]})
        whole["changes"] += answer["changes"]
    return whole


def _post(target: Target, body: Mapping[str, Any]) -> dict[str, Any]:
    with ApiClient(target) as client:
        return client.post(_ROLLBACK, body, repeatable=True)


def _what(mesh: str, only: tuple[str, ...]) -> str:
    return f"{', '.join(only)} of mesh {mesh}" if only else f"mesh {mesh}"
