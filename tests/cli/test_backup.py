"""`meshlog backup` on an archive in a directory: what it tells, what it refuses, and that looking changes nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rpds import HashTrieMap

from cli.backup_report import RestoreReport, restored_text
from cli.layout import Layout
from cli.main import main
from cli.rebuild import locked_out
from eventlog.archive.directory import DirectoryStore
from eventlog.records import Head
from eventlog.restore import Journal, Kind, Step, Witness, encode_journal, loss
from mesh.commands import CreateAccessKey, DisableAccessKey
from mesh.errors import Conflict, IntegrityError, NotFound, SettingsError
from mesh.position import Position
from mesh.principals import AccessKey
from mesh.state import State
from tests.mesh.worlds import ACCOUNT, PRINCIPAL
from tests.projector.archives import ship
from tests.projector.logs import BOTH, MemoryLog

BASE = Head("log", 1, 5, bytes(32))


class Archive:
    """A shop's log in a directory's archive, its keys beside it, and no cluster."""

    def __init__(self, root: Path, log: MemoryLog) -> None:
        self.log = log
        self.directory = root / "archive"
        self.keys = root / "escrow"
        self.data_dir = root / "new"

    def run(self, *arguments: str) -> int:
        places = ["--archive", self.directory.as_uri(), "--data-dir", str(self.data_dir)]
        return main(["backup", *arguments, *places])

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.directory.rglob("*") if path.is_file()}


@pytest.fixture
async def archive(tmp_path: Path) -> Archive:
    log = await MemoryLog.create(tmp_path)
    made = Archive(tmp_path, log)
    await log.create_access_key()
    await log.fill_shop()
    await log.do(CreateAccessKey("AKIDOTHER", "another secret", ACCOUNT, PRINCIPAL, admin=True))
    await log.do(DisableAccessKey("AKIDEXAMPLE", ACCOUNT))
    await ship(log.store, log.keyring(BOTH), DirectoryStore(made.directory))
    made.keys.mkdir()
    for key_class in BOTH:
        shutil.copy(tmp_path / f"{key_class.value}.key", made.keys / f"{key_class.value}.kek")
    return made


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


# Commands run their own event loop, so these tests are no coroutines; the fixture is done by then.


def test_list_tells_how_far_the_archive_reaches(archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    assert archive.run("list", "-o", "json") == 0
    found = told(capsys)
    assert (found["first"], found["position"], found["epoch"]) == (1, 12, 1)
    assert [(epoch["epoch"], epoch["by"]) for epoch in found["epochs"]] == [(1, "api-z1")]
    assert found["size_bytes"] > 0
    assert (found["lag"], found["drill"]) == (None, None), "no cluster is there to ask"
    assert archive.run("list") == 0
    assert "holds        1 to 12 of epoch 1" in capsys.readouterr().out


def test_verify_folds_it_with_the_keys_and_chains_it_without(
    archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    assert archive.run("verify", "--keys", str(archive.keys), "-o", "json") == 0
    found = told(capsys)
    assert (found["clean"], found["records"], found["head"]) == (True, 12, "1.12")
    assert found["state_hash"]
    assert archive.run("verify", "--without-keys", "-o", "json") == 0
    assert told(capsys)["state_hash"] is None


def test_keys_may_be_kept_elsewhere_class_by_class(archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    program = archive.keys.parent / "hsm"
    (archive.keys / "secrets.kek").rename(program)
    sources = [f"{name}={path}" for name, path in (("config", archive.keys / "config.kek"), ("secrets", program))]
    given = [word for source in sources for word in ("--key-provider", source)]
    assert archive.run("verify", *given, "-o", "json") == 0
    assert (told(capsys)["clean"], archive.run("verify", *given[:2])) == (True, SettingsError.exit_code)
    mixed = ["--keys", str(archive.keys), *given[2:]]
    assert archive.run("restore", "--to", "latest", *mixed, "--dry-run", "-o", "json") == 0


@pytest.mark.parametrize("flags", [["--without-keys"], ["--keys"]])
def test_verify_names_what_is_damaged_and_ends_with_1(
    archive: Archive, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    path = max(
        (path for path in (archive.directory / "objects").rglob("*") if path.is_file()),
        key=lambda each: each.stat().st_size,
    )
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with_path = [*flags, str(archive.keys)] if flags == ["--keys"] else flags
    assert archive.run("verify", *with_path, "-o", "json") == 1
    assert path.name[-40:] in told(capsys)["findings"][0]


@pytest.mark.parametrize(("to", "position"), [("latest", 12), ("5", 5), ("1.5", 5), ("now", 12)])
def test_a_dry_run_says_what_would_be_lost_and_changes_nothing(
    archive: Archive, capsys: pytest.CaptureFixture[str], to: str, position: int
) -> None:
    before = archive.files()
    code = archive.run("restore", "--to", to, "--keys", str(archive.keys), "--dry-run", "-o", "json")
    assert code == 0
    report = told(capsys)
    assert (report["done"], report["position"], report["epoch"]) == (False, position, 2)
    assert [lost["position"] for lost in report["lost"]] == list(range(position + 1, 13))
    disabled = [event["data"]["access_key_id"] for event in report["reapplied"]]
    assert disabled == (["AKIDEXAMPLE"] if position < 12 else [])
    assert archive.files() == before
    assert not (archive.data_dir / "cluster.json").exists()
    assert not (archive.data_dir / "restore.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--to", "13", "--dry-run"], NotFound.exit_code, "no position"),
        (["--to", "2.3", "--dry-run"], IntegrityError.exit_code, "timeline"),
        (["--to", "soon", "--dry-run"], SettingsError.exit_code, "moment"),
        (["--dry-run"], SettingsError.exit_code, "--to latest"),
        (["--to", "latest"], SettingsError.exit_code, "--yes"),
        (["--to", "latest", "--into", "/tmp/x", "--yes"], SettingsError.exit_code, "--as-clone"),
    ],
)
def test_what_cannot_be_restored_is_refused_with_a_sentence(
    archive: Archive, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert archive.run("restore", "--keys", str(archive.keys), *arguments) == code
    assert says in capsys.readouterr().err
    assert not (archive.data_dir / "restore.json").exists()


def test_without_a_key_nothing_is_touched(archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    before = archive.files()
    assert archive.run("restore", "--to", "latest", "--yes") == SettingsError.exit_code
    assert "--keys" in capsys.readouterr().err
    (archive.keys / "secrets.kek").unlink()
    assert archive.run("restore", "--to", "latest", "--keys", str(archive.keys), "--yes") != 0
    assert "secrets.kek" in capsys.readouterr().err
    assert archive.files() == before
    assert not (archive.data_dir / "restore.json").exists()


# --- a restore under way


def journal(**fields: Any) -> Journal:
    made = Journal(
        restore_id="r",
        kind=Kind.CLUSTER,
        source="file:///archive",
        asked="latest",
        reason="",
        base=BASE,
        head=BASE._replace(epoch=2),
        loss=loss(BASE.at, Position(1, 6), (), []),
        archive_head=Position(1, 6),
        begun_us=0,
    )
    return replace(made, **fields)


def test_up_does_not_start_what_a_restore_has_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path)
    layout.restore_journal.write_bytes(encode_journal(journal(done=(Step.CLAIM,))))
    assert main(["up", "--detach", "--data-dir", str(tmp_path)]) == Conflict.exit_code
    assert "meshlog backup restore" in capsys.readouterr().err
    assert not layout.cluster_file.exists()


def test_a_restore_under_way_goes_nowhere_else(archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    archive.data_dir.mkdir()
    Layout(archive.data_dir).restore_journal.write_bytes(encode_journal(journal(kind=Kind.CLEAN)))
    code = archive.run("restore", "--to", "3", "--keys", str(archive.keys), "--yes")
    assert code == Conflict.exit_code
    assert "under way" in capsys.readouterr().err


def test_an_operator_is_not_locked_out_by_what_is_revoked_again() -> None:
    key = AccessKey("OWN", "s", ACCOUNT, PRINCIPAL, admin=True)
    other = key._replace(access_key_id="OTHER")

    def state(*keys: AccessKey) -> State:
        return State(access_keys=HashTrieMap({each.access_key_id: each for each in keys}))

    def revoking(*names: str) -> Journal:
        return journal(restricting=tuple({"data": {"access_key_id": name}} for name in names))

    assert locked_out("OWN", revoking("OWN"), state(key))
    assert locked_out("OWN", revoking("OTHER"), state(key._replace(disabled_us=1), other))
    assert not locked_out("OWN", revoking("OWN"), state(key, other))
    assert not locked_out("OWN", revoking("OTHER"), state(key, other))
    assert not locked_out("OWN", revoking(), state()), "a key made after the moment is made again"


# --- the report


def report(**fields: Any) -> dict[str, Any]:
    event = {"position": 7, "time": "t7", "type": "ResourceUpdated", "actor": "ann", "account": "1", "resource": "m/x"}
    witnesses = [Witness("api-z1", Position(1, 8), (event,))]
    lost = loss(BASE.at, Position(1, 6), [event | {"position": 6}], witnesses)
    restricting = ({"type": "AccessKeyDisabled", "account": "1", "actor": "ann", "data": {"access_key_id": "AK"}},)
    values: dict[str, Any] = {"seconds": 12.34, "done": True, "place": "/data"} | fields
    kept = values.pop("loss", lost)
    return RestoreReport(journal=journal(restricting=restricting, loss=kept), **values).document()


def test_the_report_lists_each_lost_write_and_who_knew_of_it() -> None:
    document = report()
    assert [(lost["position"], lost["known_by"]) for lost in document["lost"]] == [(6, "archive"), (7, "api-z1")]
    assert (document["unnamed"], document["certain"], document["known_position"]) == ([[8, 8]], True, 8)
    text = restored_text(document)
    assert "restored the log to 1.5 as epoch 2" in text
    assert "3 writes are lost" in text
    assert "8 to 8" in text
    assert "AccessKeyDisabled AK" in text


def test_where_nobody_was_left_to_ask_the_report_says_so() -> None:
    nobody = loss(BASE.at, Position(1, 5), (), [])
    text = restored_text(report(loss=nobody, done=False))
    assert "may be missing too" in text
    assert "would restore" in text
