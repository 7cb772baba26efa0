"""The commands `reileta node …` and `reileta cluster …`, with a stand-in for the cluster."""

from __future__ import annotations

import types
from collections.abc import Iterator

import pytest

from reileta import cli
from reileta.cli_options import variable
from reileta.cluster.commands import ClusterSeen, RelayFigures
from reileta.cluster.nats_witness import About, SeenRecord
from reileta.rules.cluster.lease import Record
from reileta.settings import Settings
from reileta.startup import StartupError
from reileta.store.cluster_leases import NodeRow
from tests import logs
from tests.reileta.cli_modules import stand_in

URL = "postgresql://db/reileta"
NATS = "nats://nats:4222"
ONE = NodeRow("c_1", "one", "0.1.0", 0, 41, True, None, None, 3)
TWO = NodeRow("c_2", "two", "0.1.0", 0, 7, False, None, None, 0)
DEAD = NodeRow("c_3", "three", "0.1.0", 0, 9, True, 5_000, "c_1", 0)
YIELDED = NodeRow("c_4", "four", "0.1.0", 0, 9, True, 6_000, "c_4", 0)
ABOUT = About("0.1.0", draining=True, load=0.25, players=12)


class FakeCommands(types.ModuleType):
    """Stands in the place of what the commands do to the cluster."""

    def __init__(self) -> None:
        super().__init__("reileta.cluster.commands")
        self.done: list[str] = []
        self.nats = True

    def look(self, settings: Settings) -> ClusterSeen:
        records = None
        if settings.nats is not None and self.nats:
            records = {"c_1": SeenRecord(Record(9, 41, "up"), ABOUT)}
        relays = {} if records is None else {"c_1": RelayFigures(3, 2, 1, 4)}
        return ClusterSeen(9_000, [ONE, TWO, DEAD, YIELDED], records, 2, 17, relays)

    def drain(self, settings: Settings, node: str, *, on: bool) -> int | None:
        if settings.nats is None:
            raise StartupError("--nats is needed")
        self.done.append(f"drain {node} {on}")
        return 5 if node == "one" else None

    def yield_up(self, settings: Settings, node: str) -> bool:
        self.done.append(f"yield {node}")
        return node == "one"

    def bump(self, settings: Settings) -> None:
        self.done.append("bump")


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    with logs.restored():
        yield


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> FakeCommands:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    fake = FakeCommands()
    stand_in(monkeypatch, "reileta.cluster.commands", fake)
    return fake


def run(*words: str) -> int:
    return cli.main([*words, "--database", URL])


def test_nodes_are_listed_with_what_they_host(
    commands: FakeCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("node", "list", "--nats", NATS) == 0
    first, second = capsys.readouterr().out.splitlines()
    for part in ("one", "c_1", "instances=3", "players=12", "load=0.25", "draining"):
        assert part in first
    assert "two" in second
    assert "players" not in second


def test_the_status_shows_both_witnesses_and_the_fallen(
    commands: FakeCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cluster", "status", "--nats", NATS) == 0
    one, two, dead, yielded, places = capsys.readouterr().out.splitlines()
    assert "beat=41  nats_ok=yes  record=up:41" in one
    assert "gaps=3  replays=2  restores=1  lagging=4" in one
    assert "nats_ok=no  record=none" in two
    assert "gaps" not in two
    assert "by=c_1" in dead
    assert "by=itself" in yielded
    assert places == "instances without a host=2  epoch=17"


@pytest.mark.parametrize(("asked", "said"), [(True, "does not answer"), (False, "not asked")])
def test_the_status_says_what_it_does_not_know(
    commands: FakeCommands, capsys: pytest.CaptureFixture[str], asked: bool, said: str
) -> None:
    commands.nats = False
    assert run("cluster", "status", *(("--nats", NATS) if asked else ())) == 0
    out = capsys.readouterr().out
    assert said in out.splitlines()[0]
    assert "record=" not in out


def test_a_node_is_drained_and_takes_instances_again(
    commands: FakeCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("node", "drain", "one", "--nats", NATS) == 0
    assert capsys.readouterr().out == "one takes no more instances; it has 5\n"
    assert run("node", "drain", "one", "--undo", "--nats", NATS) == 0
    assert commands.done == ["drain one True", "drain one False"]


@pytest.mark.parametrize("words", [("drain", "nine", "--nats", NATS), ("yield", "nine")])
def test_a_node_that_is_not_there_is_an_error(
    commands: FakeCommands, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run("node", *words) == 1
    assert "there is no node nine" in capsys.readouterr().err


def test_draining_needs_nats(commands: FakeCommands, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("node", "drain", "one") == 1
    assert "--nats is needed" in capsys.readouterr().err


def test_yield_and_bump(commands: FakeCommands, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("node", "yield", "one") == 0
    assert run("cluster", "bump") == 0
    assert commands.done == ["yield one", "bump"]
