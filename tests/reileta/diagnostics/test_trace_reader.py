from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reileta.diagnostics.trace_reader
from reileta.diagnostics.trace_reader import Found, LogEvent, TraceStep, find, trace_id, tree

TRACE = "00000000deadbeef"
OTHER = "00000000cafebabe"


def line(event: str, at_us: int = 0, *, trace: str = TRACE, **keys: Any) -> bytes:
    """A line of the log, `at_us` after a certain second."""
    time = f"2026-11-21T20:17:13.{at_us:06d}Z"
    return json.dumps(
        {"time": time, "level": "debug", "event": event, "trace": trace, **keys}
    ).encode()


def log(*lines: bytes) -> io.BytesIO:
    return io.BytesIO(b"\n".join(lines) + b"\n")


def received(id_: int, actor: str, type_: str, at_us: int, *, cause: int = 0, **keys: Any) -> bytes:
    times = {"waited_us": 20, "handled_us": 100, **keys}
    return line("actor.received", at_us, message=id_, actor=actor, type=type_, cause=cause, **times)


JOIN = [
    line("socket.received", 100, socket=3, command="instance-join", bytes=98),
    line("frames.sent", 480, actor="instance/i_1", message=42, frames=3, sockets=2, drain=1),
    received(42, "instance/i_1", "AddMember", 450, cause=41),
    received(41, "session/s_1", "Join", 600, cause=0, handled_us=400),
    received(43, "hub", "Publish", 700, cause=42, handled_us=10),
    line("socket.served", 900, socket=3, command="instance-join", us=800),
]


def shape(step: TraceStep) -> Any:
    """What caused what, without times."""
    name = f"{step.place} {step.what}"
    return (name, [shape(one) for one in step.caused]) if step.caused else name


def test_a_join_from_its_socket_to_the_sockets() -> None:
    found = find(log(*JOIN), TRACE)
    assert (found.lines, found.foreign, found.cut) == (6, 0, False)
    root = tree(found.events)
    assert shape(root) == (
        "socket 3 instance-join, 98 bytes",
        [
            (
                "session/s_1 Join",
                [("instance/i_1 AddMember", ["instance/i_1 frames", "hub Publish"])],
            )
        ],
    )
    join = root.caused[0]
    enter = join.caused[0]
    assert (root.took_us, root.error) == (800, None)
    assert (join.message, join.took_us, join.waited_us) == (41, 400, 20)
    assert join.begins_us - root.begins_us == 100
    assert enter.begins_us - root.begins_us == 250
    assert enter.sent_us - root.begins_us == 230
    assert enter.caused[0].sent == (3, 2, 1)


@settings(deadline=None)
@given(st.permutations(JOIN))
def test_the_order_of_the_lines_does_not_matter(lines: list[bytes]) -> None:
    assert shape(tree(find(log(*lines), TRACE).events)) == shape(
        tree(find(log(*JOIN), TRACE).events)
    )


def test_a_request_is_where_its_trace_begins() -> None:
    lines = [
        received(7, "instance/i_1", "Change", 500),
        line("request.served", 900, method="POST", route="/api/instances/<id>", status=409, us=850),
    ]
    root = tree(find(log(*lines), TRACE).events)
    assert shape(root) == (
        "HTTP POST /api/instances/<id> answered with 409",
        ["instance/i_1 Change"],
    )
    assert root.took_us == 850
    assert root.caused[0].begins_us - root.begins_us == 350


def test_a_trace_without_its_beginning_still_has_a_tree() -> None:
    root = tree(find(log(received(7, "hub", "Publish", 500, cause=3)), TRACE).events)
    assert shape(root) == ("server unlogged start", ["hub Publish"])
    assert root.begins_us == root.caused[0].sent_us


def test_a_message_that_crashed_its_actor_stands_where_it_was() -> None:
    lines = [
        line("socket.received", 0, socket=1, command="instance-data", bytes=9),
        line("actor.crashed", 50, actor="instance/i_1", message=5, exception=[{"x": 1}]),
    ]
    assert shape(tree(find(log(*lines), TRACE).events)) == (
        "socket 1 instance-data, 9 bytes",
        [("instance/i_1 message 5", ["instance/i_1 actor.crashed"])],
    )


def test_other_events_stand_with_their_message_or_at_the_beginning() -> None:
    lines = [
        line("library.said", 10, message="a text", logger="x"),
        received(5, "instance/i_1", "Tick", 200),
        line("instance.ended", 190, message=5, instance="i_1"),
        line("frames.sent", 300, socket=4, frames=1, sockets=1),
    ]
    assert shape(tree(find(log(*lines), TRACE).events)) == (
        "server unlogged start",
        [
            "server library.said",
            ("instance/i_1 Tick", ["server instance.ended"]),
            "socket 4 frames",
        ],
    )


def test_a_refusal_carries_its_code() -> None:
    lines = [
        received(5, "instance/i_1", "AddMember", 200, error=48),
        line("socket.served", 300, socket=1, command="instance-join", us=300, error=48),
    ]
    root = tree(find(log(*lines), TRACE).events)
    assert (root.error, root.caused[0].error) == (48, 48)


def test_only_the_trace_asked_for_is_found() -> None:
    lines = [
        line("socket.received", trace=OTHER, socket=1),
        line("actor.crashed", trace=OTHER, last_messages=[f"SendData id=1 trace={TRACE} age=0.1s"]),
        json.dumps({"event": "server.ready", "time": "2026-11-21T20:17:13Z"}).encode(),
        line("socket.received", socket=2),
    ]
    found = find(log(*lines), TRACE)
    assert [event.number("socket") for event in found.events] == [2]
    assert (found.lines, found.foreign) == (4, 0)


@pytest.mark.parametrize(
    ("last", "foreign", "cut"),
    [
        (JOIN[0] + b"\n", 0, False),
        (JOIN[0], 0, False),
        (JOIN[0][:40], 0, True),
        (b"Traceback", 0, True),
        (b"Traceback\n", 1, False),
        (b"[1]\n", 1, False),
        (b'{"trace":"%b" nonsense}\n' % TRACE.encode(), 1, False),
        (b"\xff\xfe" + TRACE.encode() + b"\n", 1, False),
        (b"\n \n\r\n", 0, False),
    ],
)
def test_lines_that_are_none_are_counted(last: bytes, foreign: int, cut: bool) -> None:
    found = find(io.BytesIO(JOIN[2] + b"\r\n" + last), TRACE)
    assert (found.foreign, found.cut) == (foreign, cut)
    assert found.events[0].name == "actor.received"


def test_lines_of_any_length_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reileta.diagnostics.trace_reader, "LINE_LIMIT", 1000)
    found = find(log(b"{" + b"x" * 5000, JOIN[0], b"y" * 999, b"z" * 10_000), TRACE)
    assert (found.lines, found.foreign, len(found.events)) == (4, 3, 1)


def test_a_trace_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reileta.diagnostics.trace_reader, "EVENTS_LIMIT", 3)
    found = find(log(*JOIN), TRACE)
    assert (len(found.events), found.left_off) == (3, 3)


@pytest.mark.parametrize(
    "keys",
    [
        {"time": 5},
        {"time": "yesterday"},
        {"event": None},
        {"trace": [TRACE]},
        {"trace": TRACE.upper()},
    ],
)
def test_events_that_lack_what_an_event_has_are_passed_over(keys: dict[str, Any]) -> None:
    whole = json.loads(JOIN[0])
    assert find(log(json.dumps({**whole, "also": TRACE, **keys}).encode()), TRACE).events == []


def test_times_without_a_zone_are_utc() -> None:
    text = JOIN[0].replace(b"Z", b"")
    assert find(log(text), TRACE).events == find(log(JOIN[0]), TRACE).events


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        (TRACE, TRACE),
        (f" {TRACE.upper()}\n", TRACE),
        ("deadbeef", None),
        (TRACE + "0", None),
        ("", None),
        ("00000000deadbee/", None),
    ],
)
def test_trace_ids(text: str, id_: str | None) -> None:
    assert trace_id(text) == id_


KEYS = [
    "message",
    "cause",
    "actor",
    "type",
    "waited_us",
    "handled_us",
    "frames",
    "sockets",
    "drain",
    "us",
    "socket",
    "status",
]
odd = st.none() | st.integers(-2, 8) | st.booleans() | st.sampled_from(["hub", ""])
events = st.builds(
    LogEvent,
    st.integers(0, 1000),
    st.sampled_from(
        ["actor.received", "frames.sent", "socket.received", "request.served", "actor.crashed"]
    ),
    st.dictionaries(st.sampled_from(KEYS), odd, max_size=6),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, min_size=1, max_size=12))
def test_any_events_make_one_tree_with_each_step_once(some: list[LogEvent]) -> None:
    root = tree(some)
    waiting = [root]
    for seen, step in enumerate(waiting):
        assert seen <= len(some) * 2, "a circle"
        waiting.extend(step.caused)
    assert len({id(step) for step in waiting}) == len(waiting)


def test_a_chain_of_any_length() -> None:
    chain = [
        received(id_, "hub", "Publish", id_ % 1_000_000, cause=id_ - 1) for id_ in range(1, 5000)
    ]
    step = tree(find(log(*chain), TRACE).events)
    depth = 0
    while step.caused:
        (step,) = step.caused
        depth += 1
    assert depth == 4999


def test_an_empty_log_holds_nothing() -> None:
    assert find(io.BytesIO(b""), TRACE) == Found()
