"""What anyone on the node may know; sockets by user are tested with sessions."""

from __future__ import annotations

from actors.directory import VACANT, Directory, Occupancy
from reileta.metrics import Metrics
from tests.actors.sinks import FakeSink


def test_occupancies_are_known_and_counted() -> None:
    metrics = Metrics()
    directory = Directory(metrics)
    assert directory.occupancy("i_1") == VACANT
    directory.occupy("i_1", Occupancy(3, 1, "u_1@home.example", full=True))
    directory.occupy("i_2", Occupancy(2))
    directory.occupy("i_2", Occupancy(4))
    assert (metrics.instances, metrics.players) == (2, 7)
    assert directory.full() == {"i_1"}
    assert directory.occupancy("i_1").master == "u_1@home.example"
    directory.occupy("i_1", None)
    directory.occupy("i_1", None)
    assert (metrics.instances, metrics.players) == (1, 4)
    assert directory.full() == frozenset()


def test_watchers_of_one_and_of_all_are_kept_apart() -> None:
    directory, one, two = Directory(Metrics()), FakeSink(), FakeSink()
    directory.watch(one, None)
    directory.watch(one, "i_1")
    directory.watch(two, "i_1")
    assert list(directory.watchers("i_1")) == [one, two]
    assert list(directory.watchers("i_2")) == [one]
    directory.unwatch(one, None)
    assert directory.watches(one, "i_1")
    assert not directory.watches(one, "i_2")
    directory.unwatch(one, "i_1")
    directory.unwatch(two, "i_1")
    directory.unwatch(two, "i_1")
    assert list(directory.watchers("i_1")) == []
    assert directory._watchers == {}
