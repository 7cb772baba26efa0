"""Any history, recorded and replayed: the same state, the same words, however it was made."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reileta.diagnostics.recording import MAGIC, Called, NotARecording, Opened, encode
from reileta.diagnostics.recording_instance import RULES
from reileta.diagnostics.replay import Replay, digest, state
from reileta.diagnostics.replay_report import report
from reileta.errors import InstanceFull, ReiletaError
from reileta.records import InstanceChanges
from reileta.rules.instance.access import ACCESS_TAGS
from reileta.rules.instance.instance import Instance
from tests.reileta.instances import HOME, user, visitor
from tests.reileta.recordings import BEGAN, MemoryRecording, taped

numbers = st.integers(0, 5)
users = numbers.map(user)
players = st.integers(1, 8).map(lambda number: f"p_{number}")
visitors = st.builds(
    lambda number, session, friends: visitor(number, session, friends=friends, admin=number == 5),
    numbers,
    st.integers(0, 1),
    st.frozensets(numbers, max_size=3),
)
sessions = st.builds(lambda number, session: f"s_{number}.{session}", numbers, st.integers(0, 1))
leaders = st.just(visitor(0)) | visitors
texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=8)
numbers_at = st.none() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
changes = st.builds(
    InstanceChanges,
    title=texts,
    capacity=st.integers(1, 6),
    tags=st.sampled_from(ACCESS_TAGS).map(lambda tag: frozenset({tag})),
)
measures = st.sampled_from(["kick", "ban", "unban", "mute", "unmute", "warn", "hug"])

Operation = tuple[str, tuple[Any, ...]]


def op(rule: str, *args: st.SearchStrategy[Any]) -> st.SearchStrategy[Operation]:
    return st.tuples(st.just(rule), st.tuples(*args))


TIMED: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "join": (visitors,),
    "leave": (sessions,),
    "disconnect": (sessions,),
    "candidate": (visitors,),
    "withdraw": (users,),
    "admit": (leaders, users),
    "refuse": (leaders, users),
    "absent": (users,),
    "transfer_master": (leaders, users | players),
    "add_moderator": (leaders, users),
    "remove_moderator": (leaders, users),
    "moderate": (leaders, users | players, measures, texts, st.just(BEGAN + 10**6) | st.none()),
    "speak": (
        players,
        texts,
        numbers_at,
        st.none() | st.lists(players).map(tuple),
        st.binary(max_size=40),
    ),
    "update": (leaders, changes),
    "reassign_owner": (st.just("u_9"), users),
    "administers": (users, st.booleans()),
    "exclude": (st.sampled_from([frozenset({HOME}), frozenset({"far.example"})]),),
    "rename": (users, st.sampled_from(["Zoe", "User 1"])),
    "close": (visitors,),
    "lose_host": (),
    "tick": (),
}
"""Rules with the strategies of their arguments; the time comes behind."""
UNTIMED = {"present", "clock_was_set"}

operations = st.one_of(
    op("present", users),
    op("clock_was_set", st.sampled_from([-1000, 1000])),
    *(op(rule, *args) for rule, args in TIMED.items() if rule != "close"),
)
histories = st.tuples(
    st.sampled_from(ACCESS_TAGS),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 40), operations), max_size=60),
    st.booleans(),
)


def live(
    access: str,
    capacity: int,
    script: list[tuple[int, Operation]],
    closes: bool,
) -> tuple[MemoryRecording, Instance]:
    """A history as it happens, onto a tape; each operation is a message of its own."""
    tape = MemoryRecording()
    instance = taped(
        tape, access=access, capacity=capacity, grace_ms=30, hold_ms=50, retained_bytes=64
    )
    if closes:
        script = [*script, (1, ("close", (None,)))]
    now = BEGAN
    for number, (ms, (rule, args)) in enumerate(script, 1):
        now += ms
        tape.received(rule.title(), number, ms=now - BEGAN, socket=1 + number % 3)
        if rule == "clock_was_set":
            now += args[0]
        more = () if rule in UNTIMED else (now,)
        with contextlib.suppress(ReiletaError):
            getattr(instance, rule)(*args, *more, **further(rule, ms))
    return tape, instance


def further(rule: str, number: int) -> dict[str, Any]:
    """Arguments that may be left out, each in some of the calls."""
    if rule in ("join", "candidate") and number % 2:
        return {"silent": frozenset(f"s_{number % 4}.{session}" for session in (0, 1))}
    if rule == "speak" and number % 2:
        return {"series": number % 3}
    if rule == "disconnect" and number % 2:
        return {"closed": True}
    return {}


def test_the_histories_use_every_rule_but_those_of_a_restart() -> None:
    assert set(TIMED) | UNTIMED == set(RULES) - {"restore", "resume"}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories)
def test_a_replay_comes_out_as_it_was(history: Any) -> None:
    tape, instance = live(*history)
    tape.end(state=digest(instance))
    replay = Replay(tape.file())
    replay.run()
    assert replay.rules is not None
    assert state(replay.rules) == state(instance)
    assert replay.as_recorded is True
    assert (replay.differing, replay.damage) == (0, None)
    assert replay.refused == sum(one.raised is not None for one in tape.calls)
    assert replay.messages == len(history[2]) + history[3]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories)
def test_two_replays_of_one_file_are_equal_byte_for_byte(history: Any) -> None:
    tape, instance = live(*history)
    tape.end(state=digest(instance))
    first, second = ("\n".join(report(Replay(tape.file()), steps=True)) for _ in range(2))
    assert first.encode() == second.encode()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories, st.data())
def test_what_a_killed_server_left_behind_replays_as_far_as_it_goes(
    history: Any, data: st.DataObject
) -> None:
    tape, _ = live(*history)
    opening = len(MAGIC) + len(encode(tape.records[0]))
    size = data.draw(st.integers(opening, len(tape.data)))
    replay = Replay(io.BytesIO(tape.data[:size]))
    replay.run()
    assert replay.differing == 0
    assert replay.ended is None
    assert replay.as_recorded is None


def test_two_processes_say_the_same_whatever_order_their_sets_have() -> None:
    tape, instance = live(
        "avr:public",
        3,
        [(1, ("join", (visitor(number, friends=(1, 2, 3, 4)),))) for number in (1, 2, 3)]
        + [(1, ("update", (visitor(0), InstanceChanges(tags=frozenset({"avr:invite_plus"})))))],
        False,
    )
    tape.end(state=digest(instance))
    code = (
        "import io, sys\n"
        "from reileta.diagnostics.replay import Replay\n"
        "from reileta.diagnostics.replay_report import report\n"
        "replay = Replay(io.BytesIO(sys.stdin.buffer.read()))\n"
        "sys.stdout.write('\\n'.join(report(replay, steps=True)))\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=tape.data,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(said) == 1
    assert b"the replay matches the recording" in said.pop()


def test_a_crash_of_the_rules_happens_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = MemoryRecording()
    instance = taped(tape, capacity=1)
    player, _ = instance.join(visitor(1), BEGAN)
    with pytest.raises(AssertionError):
        instance.restore(visitor(2), player, BEGAN)
    tape.end("crashed", error="AssertionError")
    replay = Replay(tape.file())
    (step,) = replay.steps()
    assert isinstance(step.calls[-1].error, AssertionError)
    assert replay.differing == 0


def test_what_comes_out_otherwise_is_told() -> None:
    tape, instance = live("avr:public", 1, [(1, ("join", (visitor(1),)))], False)
    tape.called("join", (visitor(2), BEGAN + 2), {}, (), None)  # it is full
    tape.called("join", (visitor(2), BEGAN + 2), {}, (), "InstanceFull")
    tape.called("leave", ("s_1.0", BEGAN + 3), {}, ("p_9",), None)  # makes no player
    tape.called("join", (visitor(3), BEGAN + 4), {}, (), None)  # makes one
    tape.called("dance", (1,), {"how": "well"}, (), None)
    tape.called("tick", ("noon",), {}, (), None)
    tape.called("tick", (1, 2, 3), {}, (), None)
    tape.called("__init__", (), {}, (), None)
    tape.end(state=digest(instance))
    replay = Replay(tape.file())
    calls = [call for step in replay.steps() for call in step.calls]
    differs = [call.differs for call in calls]
    assert differs[:2] == [None, None]
    assert differs[2] == "it succeeded in the recording and raised InstanceFull in the replay"
    assert isinstance(calls[3].error, InstanceFull)
    assert differs[3] is None
    assert differs[4] == "it made fewer players than in the recording"
    assert differs[5] == "it succeeded in the recording and raised LookupError in the replay"
    assert differs[6] == "this version has no such rule"
    assert calls[6].arguments == {"#0": 1, "how": "well"}
    assert differs[7] is not None
    assert differs[8] is not None
    assert differs[7].startswith("its arguments do not match this version")
    assert differs[9] is not None
    assert replay.differing == 7
    assert replay.as_recorded is False


def test_an_end_state_of_other_rules_is_noticed() -> None:
    tape, _ = live("avr:public", 1, [], False)
    tape.end(state=b"\x00" * 32)
    replay = Replay(tape.file())
    replay.run()
    assert (replay.differing, replay.as_recorded) == (0, False)


def test_a_recording_without_a_beginning_is_refused() -> None:
    for data in (MAGIC, MAGIC + encode(Called("tick", (1,), {}, (), None))):
        with pytest.raises(NotARecording, match="first record is missing"):
            Replay(io.BytesIO(data))


def test_a_recording_that_ends_before_there_was_an_instance() -> None:
    replay = Replay(io.BytesIO(MAGIC + encode(Opened("i_1", 1, "0.1.0"))))
    replay.run()
    assert replay.rules is None
    assert replay.as_recorded is None


def test_states_that_differ_have_different_digests() -> None:
    one, other = taped(MemoryRecording()), taped(MemoryRecording())
    assert digest(one) == digest(other)
    one.join(visitor(1), BEGAN)
    assert digest(one) != digest(other)
    other.join(visitor(1), BEGAN)
    assert digest(one) == digest(other)
    one.speak("p_1", "k", None, None, b"1", BEGAN)
    other.speak("p_1", "k", None, None, b"2", BEGAN)
    assert digest(one) != digest(other)
