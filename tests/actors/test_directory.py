"""What anyone on the node may know; sockets by user are tested with sessions."""

from __future__ import annotations

from actors.directory import VACANT, Directory, Occupancy
from reileta.observability.metrics import Metrics
from reileta.rules.visibility import Audience
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
    assert directory.debug_counts()["watchers"] == 0


def test_the_version_grows_with_what_can_be_seen_and_with_nothing_else() -> None:
    directory, one, two = Directory(Metrics()), FakeSink(), FakeSink()
    versions = [directory.version]

    def grew() -> bool:
        versions.append(directory.version)
        return versions[-1] > versions[-2]

    directory.occupy("i_1", None)
    assert not grew()
    directory.occupy("i_1", Occupancy())
    assert grew()
    directory.occupy("i_1", Occupancy(1))
    assert grew()
    directory.occupy("i_1", Occupancy(1))
    assert not grew()
    directory.occupy("i_1", Occupancy(1, master="u_1"))
    assert grew()
    directory.occupy("i_1", Occupancy(1, master="u_1", audience=Audience((frozenset({"u_1"}),))))
    assert grew()
    directory.occupy("i_1", None)
    assert grew()
    directory.occupy("i_1", None)
    assert not grew()
    for sink, first in ((one, True), (two, False)):
        assert directory.opened("u_1", sink) == first
        assert grew() == first
    for sink, last in ((one, False), (two, True), (two, False)):
        assert directory.closed("u_1", sink) == last
        assert grew() == last
