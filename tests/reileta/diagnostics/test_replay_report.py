from __future__ import annotations

import contextlib
import io

import pytest

from reileta.diagnostics.recording import MAGIC, Opened, Reason, encode
from reileta.diagnostics.replay import Replay, digest
from reileta.diagnostics.replay_report import report
from reileta.errors import ReiletaError
from tests.reileta.instances import user, visitor
from tests.reileta.recordings import BEGAN, MemoryRecording, taped

BEGIN = "i_1, from 2026-09-21T14:13:20.000Z, recorded by reileta 0.1.0"


def told(tape: MemoryRecording, *, steps: bool = True) -> list[str]:
    return list(report(Replay(tape.file()), steps=steps))


def evening() -> MemoryRecording:
    """Two come in, one speaks to the other, a third is refused; then it stops."""
    tape = MemoryRecording()
    instance = taped(tape, capacity=2)
    tape.received("AddMember", 41, ms=12, cause=40, trace=0xABC, socket=1)
    instance.join(visitor(1), BEGAN + 12)
    tape.received("AddMember", 42, ms=13, socket=2)
    instance.join(visitor(2), BEGAN + 13)
    tape.received("AddMember", 43, ms=14)
    with contextlib.suppress(ReiletaError):
        instance.join(visitor(3), BEGAN + 14)
    tape.received("SendData", 44, ms=20, socket=1)
    instance.speak("p_1", "pos", 2, None, b'{"x":1}', BEGAN + 20)
    instance.speak("p_1", "pos", 1, None, b'{"x":0}', BEGAN + 20)
    instance.speak("p_1", None, None, ("p_2",), b'{"x":0}', BEGAN + 20)
    tape.received("Watch", 45, ms=21)
    tape.end(state=digest(instance))
    return tape


def test_each_step_says_what_came_and_what_it_did() -> None:
    lines = told(evening())
    assert lines[0] == BEGIN
    assert lines[1:3] == ["", "at the start"]
    assert lines[3].startswith('    Instance(record=Instance(id="i_1"')
    first = lines.index(
        "#1 +0.012 s AddMember, message 41 caused by 40, socket 1, trace 0000000000000abc"
    )
    assert lines[first + 1].startswith(f'    join(who=Visitor(session="s_1.0", user="{user(1)}"')
    assert lines[first + 2].startswith('        answers Player(id="p_1"')
    assert lines[first + 3].startswith("        Joined(player=Player(")
    assert lines[first + 4].startswith(f'        MasterChanged(user="{user(1)}", before=None)')
    assert "#2 +0.013 s AddMember, message 42, socket 2" in lines
    refused = lines.index("#3 +0.014 s AddMember, message 43")
    assert lines[refused + 2].startswith("        raises InstanceFull")
    spoken = lines.index("#4 +0.020 s SendData, message 44, socket 1")
    assert 'data=<7 bytes "{\\"x\\":1}">' in lines[spoken + 1]
    assert lines[spoken + 2] == "        goes to everyone else"
    assert lines[spoken + 4] == "        is dropped: the retained value is newer"
    assert lines[spoken + 6] == '        goes to ["p_2"]'
    assert lines[lines.index("#5 +0.021 s Watch, message 45") + 1] == ("    calls no rule")


def test_without_steps_only_the_end_is_told() -> None:
    lines = told(evening(), steps=False)
    assert lines[:6] == [
        BEGIN,
        "",
        "5 messages, 7 calls of rules, 1 of them refused",
        "+1.000 s: the instance stopped normally",
        "the replay matches the recording",
        "",
    ]
    assert lines[6] == "final state of the instance"
    assert "    players: 2" in lines
    assert "    retained: 1" in lines
    assert f'    master: "{user(1)}"' in lines
    assert lines[2:] == told(evening())[2 - len(lines) :]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("crashed", "the instance crashed (Boom)"),
        ("overflow", "because the disk was too slow"),
        ("limit", "because the folder was full"),
        ("unrecordable", "at a call that could not be recorded"),
    ],
)
def test_how_a_recording_ends_is_told(reason: Reason, said: str) -> None:
    tape = MemoryRecording()
    taped(tape)
    tape.end(reason, error="Boom" if reason == "crashed" else None)
    lines = told(tape, steps=False)
    assert said in lines[3]
    assert lines[4] == "every call matches the recording; the final state was not recorded"


def test_a_recording_that_breaks_off_is_told() -> None:
    tape = MemoryRecording()
    taped(tape)
    assert "the recording has no end: the server is still running, or was killed" in told(tape)
    tape.data += b"\x01\x02"
    (line,) = (one for one in told(tape) if one.startswith("the rest of the file can't be read"))
    assert "the last record is truncated" in line


def test_a_replay_that_differs_says_so() -> None:
    tape = MemoryRecording()
    taped(tape)
    tape.called("tick", (BEGAN,), {}, (), "InstanceFull")
    lines = told(tape)
    difference = "it raised InstanceFull in the recording and succeeded in the replay"
    assert f"        differs from the recording: {difference}" in lines
    assert "1 call did not match the recording: see --steps" in lines
    other = MemoryRecording()
    taped(other)
    other.end(state=b"")
    assert "every call matches the recording, but the final state does not" in told(other)


def test_a_recording_without_an_instance() -> None:
    data = MAGIC + encode(Opened("i_1", 10**18, "0.1.0"))
    lines = list(report(Replay(io.BytesIO(data))))
    assert lines[0] == "i_1, from 1000000000000000000 ms, recorded by reileta 0.1.0"
    assert lines[-1] == "the recording ends before the instance was created"


def test_what_players_wrote_can_forge_no_line() -> None:
    tape = MemoryRecording()
    instance = taped(tape)
    instance.join(visitor(1), BEGAN)
    tape.received("SendData\x1b[2J", 1)
    instance.speak("p_1", "k\n#9 +0.000 s Forged", None, None, b"\n\x1b[2J\xc2\x9b", BEGAN)
    assert all(line.isprintable() for line in told(tape))
    assert not any(line.startswith("#9") for line in told(tape))
