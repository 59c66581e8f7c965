"""`meshlog connect`: a local endpoint through which any script uses the cluster, whatever credentials it has."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import Sequence

import rich_click as click

from cli.client import Target, find_target
from cli.env import CONNECT_LISTEN
from cli.layout import Layout
from cli.options import data_dir_option, endpoint_options
from cli.output import note
from mesh.errors import SettingsError
from runtime.listen import check_free
from runtime.settings import split_address


@click.command()
@data_dir_option
@endpoint_options
@click.option("--zone", help="Prefer this zone's API server.")
@click.option(
    "--listen",
    default=CONNECT_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    help="Where callers find it; port 0 lets the system choose.",
)
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Let it listen on other addresses than loopback. Whoever reaches it acts with your key.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def connect(
    layout: Layout,
    *,
    endpoint: str | None,
    zone: str | None,
    listen: str,
    allow_remote: bool,
    command: tuple[str, ...],
) -> int:
    """Serve the App Mesh API on this machine, for scripts that have AWS credentials for other services.

    Every caller is taken, signed anew with your key of the cluster, and passed on to an API server; when one fails, to
    another zone's. With a COMMAND (after --), it runs that with AWS_ENDPOINT_URL_APP_MESH set, and ends with it.
    """
    from connect.app import is_loopback  # noqa: PLC0415

    host, port = split_address(listen, "--listen")
    if not allow_remote and not is_loopback(host):
        raise SettingsError(
            f"--listen {listen} is not a loopback address, and whoever reaches it would act with your key: listen on "
            "127.0.0.1, or say --allow-remote"
        )
    if port:
        check_free(listen, "--listen")
    target = find_target(layout, os.environ, endpoint=endpoint, zone=zone)
    if not target.urls:
        raise SettingsError("this cluster has no API server: see `meshlog status`")
    return asyncio.run(_serve(target, (host, port), command, allow_remote=allow_remote))


async def _serve(target: Target, listen: tuple[str, int], command: Sequence[str], *, allow_remote: bool) -> int:
    from connect.app import ConnectApp  # noqa: PLC0415
    from connect.relay import Relay  # noqa: PLC0415
    from connect.requests import CallerKey  # noqa: PLC0415
    from connect.upstream import Upstream  # noqa: PLC0415
    from runtime.clock import SystemClock, SystemEntropy  # noqa: PLC0415
    from runtime.http_server import HttpServer  # noqa: PLC0415
    from runtime.supervise import Supervisor  # noqa: PLC0415

    clock, entropy, key = SystemClock(), SystemEntropy(), target.key
    tls = ssl.create_default_context(cafile=str(target.ca_bundle) if target.ca_bundle else None)
    upstreams = [Upstream(url, clock, tls) for url in target.urls]
    caller = CallerKey(key.access_key_id, key.secret_access_key, key.region, key.session_token)
    relay = Relay(upstreams, caller, clock, note)
    server = HttpServer(
        ConnectApp(relay, clock, entropy, allow_remote=allow_remote), listen, clock=clock, entropy=entropy
    )
    async with Supervisor() as supervisor:
        supervisor.stop_on_signals()
        serving = supervisor.start(server.serve(), "http")
        for probe in relay.probes():
            supervisor.start(probe, "probe")
        while not server.started and not serving.done():
            await clock.sleep(0.01)
        try:
            if command and not serving.done():
                return await _run(command, _url(listen[0], server.port))
            if not serving.done():
                url = _url(listen[0], server.port)
                note(f"listening on {url}, for {len(target.urls)} API servers, as {key.access_key_id}")
                note(f"next, elsewhere: export AWS_ENDPOINT_URL_APP_MESH={url}; Ctrl-C ends")
            await supervisor.wait()
        finally:
            server.announce_end()
            server.should_exit = True
            await asyncio.wait([serving])
            relay.close()
    return 0


async def _run(command: Sequence[str], url: str) -> int:
    """The command's exit code. Ctrl-C reaches it too, by the terminal; our own end ends it."""
    try:
        child = await asyncio.create_subprocess_exec(*command, env={**os.environ, "AWS_ENDPOINT_URL_APP_MESH": url})
    except OSError as error:
        raise SettingsError(f"cannot run {command[0]}: {error.strerror}") from error
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, child.terminate)
    code = await child.wait()
    return code if code >= 0 else 128 - code


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
