"""`meshlog`: the commands, loaded one at a time, so that a short one stays short.

Data goes to stdout, all else to stderr. Exit codes: 0 ok, 1 error, 2 usage, 3 differences, 4 not found, 5 conflict,
6 timeout, 7 unhealthy (each error's own is in mesh.errors), 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import rich_click as click
from click.exceptions import Abort, ClickException, Exit

from mesh.errors import MeshlogError

INTERRUPTED = 130
_UNEXPECTED = 1


class Loaded(NamedTuple):
    """Where a command is defined, and its line in the list of commands."""

    module: str
    attribute: str
    help: str


COMMANDS: Mapping[str, Loaded] = {
    "up": Loaded("cli.local", "up", "Start a whole cluster on this machine."),
    "down": Loaded("cli.local", "down", "Stop the cluster on this machine; its data stays."),
    "status": Loaded("cli.local", "status", "Show the cluster's processes: what runs, where, and how far it is."),
    "env": Loaded("cli.env", "env", "Print what boto3, the aws CLI and Terraform need to use this cluster."),
    "connect": Loaded("cli.connect", "connect", "Serve the API on this machine, for scripts with other credentials."),
    "context": Loaded("cli.contexts", "context", "Name clusters, and choose the one that commands use."),
    "demo": Loaded("cli.demo", "demo", "Show a mesh, a canary, the loss of a zone and a rollback."),
    "get": Loaded("cli.resources", "get", "List or show App Mesh resources."),
    "describe": Loaded("cli.resources", "describe", "Show one resource: spec, tags, who changed it last."),
    "apply": Loaded("cli.apply", "apply", "Make meshes what manifests say: App Mesh, Kubernetes, CloudFormation."),
    "delete": Loaded("cli.apply", "delete", "Delete what manifests have."),
    "log": Loaded("cli.history", "log", "Show the history: who changed what, and when."),
    "diff": Loaded("cli.rewind", "diff", "Show what differs between two moments, or from manifests."),
    "rollback": Loaded("cli.rewind", "rollback", "Take a mesh, or parts of it, back to an earlier state."),
    "audit": Loaded("cli.audit", "audit", "Show every call, accepted or refused, as CloudTrail does."),
    "fsck": Loaded("cli.check", "fsck", "Verify the whole log: contiguity, hashes, and that it opens."),
    "quarantine": Loaded("cli.quarantine", "quarantine", "Pass over a record that stops every server."),
    "iam": Loaded("cli.iam", "iam", "Say who may do what: users, roles, policies, access keys."),
    "pki": Loaded("cli.pki", "pki", "Certificates for TLS between proxies: what ACM's ARNs name."),
    "mesh": Loaded("cli.sharing", "mesh", "Share meshes with other accounts."),
    "account": Loaded("cli.sharing", "account", "Add and list the accounts of the cluster."),
    "registry": Loaded("cli.registry", "registry", "Register instances; show who is registered, and how he is."),
    "backup": Loaded("cli.backup", "backup", "List and verify the archive; restore the cluster from it."),
    "verify": Loaded("cli.verify", "verify", "Verify a proof of history, offline."),
    "proxy": Loaded("cli.proxy", "proxy", "Connect Envoys to the mesh."),
    "init": Loaded("cli.deployment", "init", "Make the files of a cluster on several hosts."),
    "provision": Loaded("cli.deployment", "provision", "Set up a new etcd cluster's access control and log."),
    "quotas": Loaded("cli.quotas", "quotas", "Show and change how much an account may have."),
    "keys": Loaded("cli.keys", "keys", "Rotate, re-wrap and bring back the keys of the log."),
    "etcd": Loaded("cli.etcd", "etcd", "List etcd's members; replace one whose disk is lost."),
    "serve": Loaded("cli.service", "serve", "Run one role as this process."),
}
ALIASES: Mapping[str, str] = {"history": "log"}


class _Named(click.RichCommand):
    """Stands for a command in the list of commands, without loading it."""


class LazyGroup(click.RichGroup):
    """A group that imports a command's module when it is called, not when it is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        found = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        return None if found is None else _Named(name=cmd_name, help=found.help)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name is None or command is None:
            return name, command, rest
        found = COMMANDS[ALIASES.get(name, name)]
        real: click.Command = getattr(importlib.import_module(found.module), found.attribute)
        return name, real, rest


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="meshlog", prog_name="meshlog")
@click.option("--context", "context_name", metavar="NAME", help="The cluster, by its context.  [env: MESHLOG_CONTEXT]")
def root(context_name: str | None) -> None:
    """A control plane for Envoy that speaks the AWS App Mesh API and keeps every change as an event."""
    if context_name is not None:
        os.environ["MESHLOG_CONTEXT"] = context_name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors are one sentence on stderr."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe has had enough. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        result: Any = root.main(args=arguments, prog_name="meshlog", standalone_mode=False)
    except MeshlogError as error:
        return _fail(error.message, error.exit_code)
    except Exit as stop:
        return int(stop.exit_code)
    except ClickException as error:
        error.show()
        return int(error.exit_code)
    except (Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        if os.environ.get("MESHLOG_DEBUG"):
            raise
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error} (is the path right, and writable by this user?)", _UNEXPECTED)
    except Exception as error:
        if os.environ.get("MESHLOG_DEBUG"):
            raise
        return _fail(f"unexpected {type(error).__name__}: {error} (MESHLOG_DEBUG=1 shows where)", _UNEXPECTED)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    click.echo(f"Error: {message}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
