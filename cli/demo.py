"""`meshlog demo`: the product in a minute, on real parts, told step by step.

Stage: a program over `chaos`. Turns nothing into a three-zone cluster with a real Envoy in front of two upstreams,
and each step into counts that prove it. It ends with 0 only if every step held, and must never leave a process or a
file behind, on Ctrl-C and SIGTERM too.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import rich_click as click
from botocore.exceptions import HTTPClientError

from chaos import checks
from chaos.cluster import SETUP_ATTEMPTS, Cluster, Process, appmesh_client, wait_for
from chaos.envoy import Envoy
from chaos.example import Canary, within_sampling_error
from chaos.traffic import Traffic, TrafficReport, ask_many
from chaos.upstream import UpstreamProcess
from mesh.errors import MeshlogError
from runtime.clock import Clock, SystemClock
from runtime.ports import free_port

MESH = "demo"
REQUESTS = 1_000
SEEN_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 120.0
RATE_PER_S = 100.0
BEFORE_KILL = 150
AFTER_CHANGE = 150


class Demo:
    """The story. `say` prints one line; `failed` collects what did not hold."""

    def __init__(self, cluster: Cluster, scratch: Path, zones: int, clock: Clock, say: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._scratch = scratch
        self._zones = zones
        self._clock = clock
        self._say = say
        self._step = 0
        self.failed: list[str] = []

    def tell(self) -> None:
        """All steps, in order. Raises what a step cannot go on without."""
        with ExitStack() as stack:
            self._start_cluster()
            one = stack.enter_context(UpstreamProcess("v1"))
            two = stack.enter_context(UpstreamProcess("v2"))
            canary = Canary(MESH, one.port, two.port, gateway_port=free_port())
            client = self._create_mesh(canary)
            stack.enter_context(self._start_envoy(canary))
            self._count(canary, 0.10, "90/10")
            good = self._shift(canary, client)
            self._lose_a_zone(canary)
            self._take_back(canary, client, good)
            self._check_log()

    # --- the steps

    def _start_cluster(self) -> None:
        self._title(f"A cluster: {self._zones} zones, each with etcd, an API server, a projector and a frontend")
        began_s = self._clock.monotonic_s()
        self._cluster.up(zones=self._zones)
        for process in self._cluster.processes():
            self._say(f"  {process.zone:<10} {process.role:<10} pid {process.pid:<8} {process.address}")
        self._say(f"  every role is ready after {self._clock.monotonic_s() - began_s:.1f} s")

    def _create_mesh(self, canary: Canary) -> Any:
        self._title("A mesh, made with plain AWS App Mesh calls")
        environment = self._cluster.environment()
        self._say(f"  endpoint {environment['AWS_ENDPOINT_URL_APP_MESH']}, as printed by `meshlog env`")
        client = appmesh_client(environment["AWS_ENDPOINT_URL_APP_MESH"], environment, SETUP_ATTEMPTS)
        canary.create(client, 90, 10)
        for event in self._cluster.log(MESH):
            self._say(f"  {_line(event)}")
        return client

    def _start_envoy(self, canary: Canary) -> Envoy:
        self._title("A real Envoy as the mesh's gateway")
        admin_port = free_port()
        bootstrap = self._cluster.bootstrap(canary.gateway_node, admin_port=admin_port, out=self._scratch / "gateway")
        envoy = Envoy(bootstrap, admin_port=admin_port, log=self._scratch / "envoy.log")
        try:
            envoy.wait_live(canary.gateway_port)
        except BaseException:
            envoy.stop()
            raise
        self._say(f"  Envoy, pid {envoy.pid}, has its config and listens on 127.0.0.1:{canary.gateway_port}")
        return envoy

    def _count(self, canary: Canary, share_two: float, weights: str) -> None:
        report = ask_many("127.0.0.1", canary.gateway_port, REQUESTS)
        counts = report.counts()
        self._say(
            f"  {REQUESTS} requests at {weights}: v1 {counts['v1']}, v2 {counts['v2']}, failed {len(report.failed)}"
        )
        self._hold(f"no request fails at {weights}", not report.failed)
        self._hold(
            f"the counts fit {weights} within sampling error", within_sampling_error(counts["v2"], REQUESTS, share_two)
        )

    def _shift(self, canary: Canary, client: Any) -> str:
        """Returns the position after the good change."""
        self._title("The canary moves from 90/10 to 0/100")
        with Traffic("127.0.0.1", canary.gateway_port, rate_per_s=RATE_PER_S) as traffic:
            answer = canary.set_weights(client, 0, 100)
            position = str(answer["ResponseMetadata"]["HTTPHeaders"]["x-meshlog-position"])
            self._say(f"  UpdateRoute is event {position}")
            answered_s = self._clock.monotonic_s()
            self._await_only(traffic, "v2", "the new weights in the traffic")
        report = traffic.stop()
        old_s = [sample.at_s for sample in report.samples if sample.upstream == "v1" and sample.at_s > answered_s]
        last_ms = (max(old_s) - answered_s) * 1e3 if old_s else 0.0
        self._say(f"  {last_ms:.0f} ms after the API's answer no request goes to v1 any more")
        self._hold("no request fails during the change", not report.failed)
        self._count(canary, 1.0, "0/100")
        return position

    def _lose_a_zone(self, canary: Canary) -> None:
        processes = self._cluster.processes()
        lost = self._cluster.etcd_leader_zone()
        doomed = [process for process in processes if process.zone == lost]
        survivor = next(one for one in processes if one.role == "api" and one.zone != lost)
        self._title(f"{lost} dies under traffic: kill -9 of all its processes, the leader of etcd among them")
        with Traffic("127.0.0.1", canary.gateway_port, rate_per_s=RATE_PER_S) as traffic:
            self._await_samples(traffic, BEFORE_KILL)
            self._cluster.kill(doomed)
            killed_s = self._clock.monotonic_s()
            for process in doomed:
                self._say(f"  killed {process.role:<10} pid {process.pid}")
            self._write_elsewhere(canary, survivor)
            self._await_only(traffic, "v1", f"a change written in {survivor.zone} in the traffic")
            self._say(
                f"  a change written to {survivor.zone}'s API server was in the traffic "
                f"{self._clock.monotonic_s() - killed_s:.1f} s after the kill"
            )
            self._await_samples(traffic, len(traffic.snapshot()) + AFTER_CHANGE)
            self._bring_back(doomed)
        self._report_traffic(traffic.stop(), "while the zone died and came back")

    def _write_elsewhere(self, canary: Canary, survivor: Process) -> None:
        """The bad change of the story, with one token until it is accepted: etcd may be electing a leader."""
        client = appmesh_client(survivor.url, self._cluster.environment())
        began_s = self._clock.monotonic_s()

        def accepted() -> bool:
            try:
                canary.set_weights(client, 100, 0, clientToken="demo-bad-change")
            except (
                client.exceptions.ServiceUnavailableException,
                client.exceptions.InternalServerErrorException,
                HTTPClientError,
            ):
                return False
            return True

        wait_for(accepted, SEEN_TIMEOUT_S, "a write to a living zone")
        self._say(
            f"  {survivor.zone} accepted a write after {self._clock.monotonic_s() - began_s:.1f} s: weights 100/0"
        )

    def _bring_back(self, doomed: Sequence[Process]) -> None:
        began_s = self._clock.monotonic_s()
        self._cluster.restart(doomed)
        self._cluster.wait_ready(READY_TIMEOUT_S)
        self._say(f"  its `serve` lines, run again, made it whole after {self._clock.monotonic_s() - began_s:.1f} s")

    def _take_back(self, canary: Canary, client: Any, good: str) -> None:
        self._title(f"That change was bad: back to the state after event {good}")
        position = good.rpartition(".")[2]
        command = ("rollback", "--mesh", MESH, "--to", position, "--yes")
        self._say(f"  $ meshlog {' '.join(command)}")
        with Traffic("127.0.0.1", canary.gateway_port, rate_per_s=RATE_PER_S) as traffic:
            for line in self._cluster.run(*command).splitlines():
                self._say(f"    {line}")
            self._await_only(traffic, "v2", "the rollback in the traffic")
        self._hold("no request fails during the rollback", not traffic.stop().failed)
        self._count(canary, 1.0, "0/100 again")
        described = client.describe_route(meshName=MESH, virtualRouterName=canary.router, routeName=canary.route)
        self._hold("DescribeRoute gives the earlier spec", described["route"]["spec"] == canary.route_spec(0, 100))

    def _check_log(self) -> None:
        self._title("The history: who, what, when")
        for event in self._cluster.log(MESH)[-3:]:
            self._say(f"  {_line(event)}")
        verdict = checks.fsck_clean(*self._cluster.fsck())
        self._say(f"  meshlog fsck: {verdict.detail}")
        self._hold("fsck is clean", verdict.ok)

    # --- how a step is told and judged

    def _title(self, text: str) -> None:
        self._step += 1
        self._say(f"\n{self._step}. {text}")

    def _hold(self, what: str, held: bool) -> None:
        if not held:
            self.failed.append(what)
            self._say(f"  DID NOT HOLD: {what}")

    def _report_traffic(self, report: TrafficReport, when: str) -> None:
        summary = report.summary()
        self._say(
            f"  {summary['answered']} requests {when}: {summary['failed']} failed, "
            f"p99 {summary['latency_ms'].get('p99')} ms, longest {summary['latency_ms'].get('max')} ms"
        )
        for failure in summary["first_failures"]:
            self._say(f"    failed: {failure}")
        verdict = checks.no_request_failed(report, at_least=BEFORE_KILL)
        self._hold(f"no request fails {when}", verdict.ok)

    def _await_only(self, traffic: Traffic, upstream: str, what: str) -> None:
        began_s = self._clock.monotonic_s()

        def seen() -> bool:
            recent = [sample for sample in traffic.recent(10) if sample.at_s >= began_s]
            return len(recent) == 10 and all(sample.upstream == upstream for sample in recent)

        wait_for(seen, SEEN_TIMEOUT_S, what)

    def _await_samples(self, traffic: Traffic, count: int) -> None:
        wait_for(lambda: len(traffic.snapshot()) >= count, count / RATE_PER_S + SEEN_TIMEOUT_S, f"{count} requests")


def _line(event: dict[str, Any]) -> str:
    position = f"{event['epoch']}.{event['position']}"
    who = str(event["actor"]).rpartition(":")[2]
    when = str(event["time"])[:19].replace("T", " ")
    return f"{position:<6} {when}  {who}  {event['type']:<16} {event['resource']}"


@contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    """Both end the story in the same way: through the cleaning up."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's shape
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No signal cuts the cleaning up short: what it would leave behind is what the second Ctrl-C wanted gone."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run_demo(zones: int = 3) -> int:
    """Tell the story; returns the exit code: 0 all held, 1 something did not, 130 interrupted."""
    clock = SystemClock()
    began_s = clock.monotonic_s()
    with _sigterm_like_ctrl_c(), tempfile.TemporaryDirectory(prefix="meshlog-demo-") as scratch:
        cluster = Cluster(Path(scratch) / "cluster")
        demo = Demo(cluster, Path(scratch), zones, clock, _say)
        try:
            demo.tell()
        except KeyboardInterrupt:
            _say("\ninterrupted")
            return 130
        except MeshlogError as error:
            demo.failed.append(str(error))
        finally:
            with _undisturbed():
                _say("\ncleaning up: all processes and files of the demo")
                cluster.down()
        seconds = clock.monotonic_s() - began_s
        for failure in demo.failed:
            _say(f"DID NOT HOLD: {failure}")
        _say(f"the demo {'failed' if demo.failed else 'held in every step'} ({seconds:.0f} s)")
    return 1 if demo.failed else 0


@click.command()
@click.option("--zones", type=click.IntRange(3, 5), default=3, show_default=True, help="Zones of the cluster.")
def demo(zones: int) -> None:
    """Show a mesh, a canary, the loss of a zone and a rollback, with real Envoys and real requests.

    Everything runs on this machine, on loopback, in a temporary directory, and is removed at the end.
    """
    sys.exit(run_demo(zones))
