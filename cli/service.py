"""`meshlog serve ROLE`: this process becomes one role, described by one settings file."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from cli.processes import claim_pid_file
from runtime.collector import collect_as_a_server
from runtime.limits import THREAD_SWITCH_S
from runtime.logging import configure_logging
from runtime.settings import ApiSettings, EtcdMemberSettings, FrontendSettings, ProcessSettings, ProjectorSettings
from runtime.settings_file import load

S = TypeVar("S", bound=ProcessSettings)
Function = TypeVar("Function", bound=Callable[..., Any])


def settings_options(function: Function) -> Function:
    """The file, and the settings that differ from host to host."""
    for option in (
        click.option(
            "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much is logged."
        ),
        click.option("--health", metavar="HOST:PORT", help="Where /livez, /readyz and /metrics are served."),
        click.option("--advertise", metavar="HOST:PORT", help="Where others reach this process."),
        click.option("--listen", metavar="HOST:PORT", help="Where this process is bound."),
        click.option("--zone", help="The zone that it stands in."),
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            required=True,
            envvar="MESHLOG_CONFIG",
            help="Its settings (TOML); any of them can be overridden by MESHLOG_<NAME>.",
        ),
    ):
        function = option(function)
    return function


@click.group()
def serve() -> None:
    """Run one role as this process. It ends in order on SIGTERM and on Ctrl-C."""


@serve.command()
@settings_options
def api(config: Path, **flags: str | None) -> None:
    """The App Mesh API and /meshlog/v1."""
    settings = claimed(ApiSettings, config, flags)

    from cli.serve import run_api  # noqa: PLC0415

    _run(run_api(settings), settings)


@serve.command()
@settings_options
def projector(config: Path, **flags: str | None) -> None:
    """Folds the log, compiles what Envoys need, and feeds the frontends."""
    settings = claimed(ProjectorSettings, config, flags)

    from cli.serve_projector import run_projector  # noqa: PLC0415

    _run(run_projector(settings), settings)


@serve.command()
@settings_options
def frontend(config: Path, **flags: str | None) -> None:
    """Serves xDS to Envoys."""
    settings = claimed(FrontendSettings, config, flags)

    from cli.serve_frontend import run_frontend  # noqa: PLC0415

    _run(run_frontend(settings), settings)


@serve.command()
@settings_options
def etcd(config: Path, **flags: str | None) -> None:
    """A member of the etcd cluster: this process turns into etcd itself."""
    settings = claimed(EtcdMemberSettings, config, flags)

    from cluster.etcd import server  # noqa: PLC0415

    binary = settings.binary
    if os.environ.get("MESHLOG_ETCD") or binary is None or not os.access(binary, os.X_OK):
        binary = server.find_binary()
    version = server.read_version(binary)
    server.check_version(binary, version, allow_first_look=settings.allow_first_look)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    argv = server.member_argv(binary, version, settings)
    # Its own variables would override our arguments; the pid, and so the pid file, stay ours.
    os.execve(binary, argv, {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")})  # noqa: S606


def claimed(kind: type[S], config: Path, flags: dict[str, str | None]) -> S:
    """The settings, with this process named in their pid file."""
    path = Path(os.path.abspath(config))
    settings = load(kind, path, flags=flags)
    claim_pid_file(settings.pid_file, (str(path), f"--data-dir={settings.data_dir}"))
    return settings


def _run(work: Coroutine[Any, Any, None], settings: ProcessSettings) -> None:
    configure_logging(settings.role, settings.zone, settings.log_level)
    sys.setswitchinterval(THREAD_SWITCH_S)
    collect_as_a_server()
    try:
        asyncio.run(work)
    finally:
        settings.pid_file.unlink(missing_ok=True)
