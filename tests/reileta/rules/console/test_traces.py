"""The slowest of the traces that are watched."""

from __future__ import annotations

from reileta.observability import log_events
from reileta.rules.console.traces import EVENTS, KEPT, KEPT_S, OPEN, OPEN_S, SlowTraces, steps


def request(traces: SlowTraces, id_: str, us: int, at_us: int = 1_000_000) -> bool:
    return traces.take(
        id_, at_us, log_events.REQUEST_SERVED, {"method": "GET", "route": "/x", "us": us}
    )


def test_the_slowest_come_first_with_their_parts() -> None:
    traces = SlowTraces()
    for id_, us in (("a", 500), ("b", 9000)):
        assert traces.begin(id_, 0.0, logged=False)
        traces.take(
            id_,
            999_990,
            log_events.ACTOR_RECEIVED,
            {"message": 7, "cause": 0, "actor": "hub", "type": "Publish", "handled_us": 100},
        )
        request(traces, id_, us)
    traces.settle(OPEN_S / 2)
    assert not traces.slowest
    traces.settle(OPEN_S)
    assert [one.id for one in traces.slowest] == ["b", "a"]
    assert traces.slowest[0].took_us == 9000
    assert [(depth, step.place) for depth, step in steps(traces.slowest[0].root)] == [
        (0, "HTTP"),
        (1, "hub"),
    ]
    traces.settle(OPEN_S + KEPT_S)
    assert not traces.slowest


def test_everything_is_bounded() -> None:
    traces = SlowTraces()
    taken = [traces.begin(f"{number}", 0.0, logged=False) for number in range(OPEN + 1)]
    assert taken.count(True) == OPEN
    assert traces.open == OPEN
    for number in range(OPEN):
        for us in range(EVENTS + 5 if number == 0 else 1):
            request(traces, f"{number}", us + 1)
    traces.settle(OPEN_S)
    assert len(traces.slowest) == KEPT
    assert traces.open == 0
    assert all(sum(1 for _ in steps(one.root)) <= EVENTS + 1 for one in traces.slowest)


def test_what_is_logged_only_for_the_console_stays_out_of_the_log() -> None:
    traces = SlowTraces()
    traces.begin("quiet", 0.0, logged=False)
    traces.begin("logged", 0.0, logged=True)
    assert not request(traces, "quiet", 1)
    assert request(traces, "logged", 1)
    assert traces.take("quiet", 1, log_events.PLAYER_JOINED, {})
    traces.stop()
    assert not traces.watches("quiet")


def test_a_trace_of_which_nothing_was_logged_is_dropped() -> None:
    traces = SlowTraces()
    traces.begin("a", 0.0, logged=False)
    traces.settle(OPEN_S)
    assert (traces.open, len(traces.slowest)) == (0, 0)
