from __future__ import annotations

import re

import pytest

from reileta.diagnostics.trace_reader import Found, TraceStep, find, tree
from reileta.diagnostics.trace_render import draw, mermaid, nothing, remarks
from tests.reileta.diagnostics.test_trace_reader import JOIN, TRACE, line, log, received

INSTANCE = "i_fe1ef5b1-a81f-455c-8b63-c8767a8b385e"


def drawn(*lines: bytes) -> list[str]:
    return list(draw(tree(find(log(*lines), TRACE).events), TRACE))


def diagram(*lines: bytes) -> list[str]:
    return list(mermaid(tree(find(log(*lines), TRACE).events)))


def test_a_join_as_a_tree() -> None:
    assert drawn(*JOIN) == [
        "trace 00000000deadbeef, 2026-11-21T20:17:13.000100Z, 0.800 ms",
        "",
        "           at          took",
        "    +0.000 ms      0.800 ms  socket 3: instance-join, 98 bytes",
        "    +0.100 ms      0.400 ms  `- session/s_1: Join #41, waited 0.020 ms",
        "    +0.250 ms      0.100 ms     `- instance/i_1: AddMember #42, waited 0.020 ms",
        "    +0.380 ms                      |- 3 frames to 2 sockets",
        "    +0.590 ms      0.010 ms        `- hub: Publish #43, waited 0.020 ms",
    ]


def test_a_join_as_a_sequence_diagram() -> None:
    assert diagram(*JOIN) == [
        "sequenceDiagram",
        "    participant p0 as socket 3",
        "    participant p1 as session/s_1",
        "    participant p2 as instance/i_1",
        "    participant p3 as sockets",
        "    participant p4 as hub",
        "    Note over p0: instance-join, 98 bytes",
        "    p0->>p1: Join (0.400 ms)",
        "    p1->>p2: AddMember (0.100 ms)",
        "    p2->>p3: 3 frames to 2 sockets",
        "    p2->>p4: Publish (0.010 ms)",
        "    Note over p0: done after 0.800 ms",
    ]


def test_refusals_are_told_in_both() -> None:
    lines = [
        received(5, f"instance/{INSTANCE}", "AddMember", 200, error=48),
        line("actor.crashed", 210, message=5, actor=f"instance/{INSTANCE}"),
        line("socket.served", 300, socket=1, command="instance-join", us=300, error=48),
    ]
    text = drawn(*lines)
    assert text[3].endswith("socket 1: instance-join, refused with 48")
    assert text[4].endswith(f"instance/{INSTANCE}: AddMember #5, waited 0.020 ms, refused with 48")
    assert text[5].endswith(f"instance/{INSTANCE}: actor.crashed")
    assert diagram(*lines)[1:] == [
        "    participant p0 as socket 1",
        "    participant p1 as instance/i_fe1ef5b1",
        "    Note over p0: instance-join",
        "    p0->>p1: AddMember (0.100 ms), refused with 48",
        "    Note over p1: actor.crashed",
        "    Note over p0: done after 0.300 ms, refused with 48",
    ]


def test_frames_of_a_shared_write_say_so() -> None:
    lines = [
        received(5, "instance/i_1", "SendData", 200),
        line("frames.sent", 210, message=5, actor="instance/i_1", frames=1, sockets=1, drain=7),
    ]
    assert drawn(*lines)[5].endswith(
        "1 frame to 1 socket, with those of 6 other messages in one write"
    )


def test_branches_go_on_beside_what_they_cause() -> None:
    lines = [
        received(1, "hub", "A", 100),
        received(2, "hub", "B", 200, cause=1),
        received(3, "hub", "C", 300, cause=1),
        received(4, "hub", "D", 400),
    ]
    assert [re.sub(r"^.{29}", "", text) for text in drawn(*lines)[4:]] == [
        "|- hub: A #1, waited 0.020 ms",
        "|  |- hub: B #2, waited 0.020 ms",
        "|  `- hub: C #3, waited 0.020 ms",
        "`- hub: D #4, waited 0.020 ms",
    ]


def test_all_is_ascii_in_one_line_and_without_what_mermaid_takes_for_its_own() -> None:
    strange = "x\x1b[2J\n日本; end #35;%% -->> p9: <script>"
    lines = [received(5, strange, strange, 200)]
    for text in drawn(*lines) + diagram(*lines):
        assert text.isascii()
        assert text.isprintable()
    body = "\n".join(diagram(*lines)).replace("->>", "")
    assert not set(body) & set(";#%<>\x1b")


def test_a_chain_of_any_length_is_drawn() -> None:
    root = step = TraceStep("server", "begin", 0)
    for number in range(3000):
        step.caused.append(TraceStep("hub", "Publish", number, number + 1, 1, 1))
        (step,) = step.caused
    assert len(list(draw(root, TRACE))) == 3004
    assert len(list(mermaid(root))) == 3004


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Found(), "the log is empty"),
        (
            Found(lines=5, foreign=5),
            "this is not a JSON log: run the server with --log-format json",
        ),
        (Found(lines=5, foreign=1), f"no event of trace {TRACE} in 5 lines: "),
    ],
)
def test_why_there_is_nothing(found: Found, said: str) -> None:
    assert nothing(found, TRACE).startswith(said)


def test_what_was_not_read_is_remarked() -> None:
    assert list(remarks(Found(lines=5))) == []
    assert list(remarks(Found(lines=5, foreign=2, cut=True, left_off=3))) == [
        "2 of 5 lines are not JSON; skipped",
        "the last line is truncated; skipped",
        "3 events are not shown: there are too many",
    ]
