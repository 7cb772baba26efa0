from __future__ import annotations

import inspect
import io
from typing import Any

import pytest

from reileta.diagnostics.recording import MAGIC, Called, RecordingReader, encode
from reileta.diagnostics.recording_instance import CALLS, OPENING, RULES, RecordingInstance
from reileta.errors import InstanceFull
from reileta.records import UNSET, Ban, InstanceChanges
from reileta.rules.instance.administration import Administration
from reileta.rules.instance.admission import Admission
from reileta.rules.instance.candidates import Candidate, Candidates
from reileta.rules.instance.instance import Instance
from tests.reileta.instances import OWNER, user, visitor
from tests.reileta.recordings import BEGAN, MemoryRecording, taped

READING = {"ensure_governs", "ensure_may_speak", "may_return", "plan"}
"""Methods of the rules that change nothing."""


def test_every_rule_goes_onto_the_tape() -> None:
    own = {
        name
        for part in (Admission, Administration, Instance)
        for name, method in vars(part).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }
    assert own - READING == set(RULES)


def test_queries_cost_what_they_always_do() -> None:
    replaced = set(vars(RecordingInstance)) - {"__init__", "__module__", "__doc__"}
    assert replaced == set(RULES)


def test_the_opening_holds_all_that_the_instance_was_made_from() -> None:
    tape = MemoryRecording()
    ban = Ban("i_1", user(3), None, None, OWNER, 0)
    instance = taped(tape, capacity=3, bans=[ban], grace_ms=7)
    (opening,) = tape.calls
    assert (opening.rule, opening.raised) == (OPENING, None)
    made = CALLS[OPENING].unpacked(opening.args, opening.kwargs)
    again = Instance(**made, new_player_id=lambda: "p_1")
    assert (again.record, again.owner, again.limits) == (instance.record, OWNER, instance.limits)
    assert dict(again.bans) == {user(3): ban} == dict(instance.bans)
    assert again.empty_since == BEGAN


def test_a_call_goes_onto_the_tape_as_it_ended() -> None:
    tape = MemoryRecording()
    instance = taped(tape, capacity=1)
    instance.join(visitor(1), BEGAN + 1)
    with pytest.raises(InstanceFull):
        instance.join(who=visitor(2), now=BEGAN + 2)
    _, first, second = tape.calls
    assert (first.rule, first.ids, first.raised) == ("join", ["p_1"], None)
    assert (second.rule, second.ids, second.raised) == ("join", [], "InstanceFull")
    assert first.args == (visitor(1), BEGAN + 1)
    assert second.kwargs == {"who": visitor(2), "now": BEGAN + 2}


def test_a_rule_of_a_rule_is_one_call() -> None:
    tape = MemoryRecording()
    instance = taped(tape, grace_ms=0)
    instance.join(visitor(1), BEGAN)
    assert instance.disconnect("s_1.0", BEGAN + 1) != []  # which leaves, since there is no grace
    assert [one.rule for one in tape.calls] == [OPENING, "join", "disconnect"]


def test_what_crashes_a_rule_goes_onto_the_tape_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = MemoryRecording()
    instance = taped(tape)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(instance, "apply_consequences", fail)
    with pytest.raises(ZeroDivisionError):
        instance.join(visitor(1), BEGAN)
    assert tape.calls[-1].raised == "ZeroDivisionError"
    assert tape.calls[-1].ids == ["p_1"]
    monkeypatch.undo()
    instance.tick(BEGAN)
    assert tape.calls[-1].rule == "tick"
    assert tape.calls[-1].ids == []


def roundtrip(rule: str, *args: Any) -> dict[str, Any]:
    """The arguments of a call as they come back from a file."""
    packed = CALLS[rule].packed(args, {}) if CALLS[rule].mutable else (args, {})
    (called,) = RecordingReader(io.BytesIO(MAGIC + encode(Called(rule, *packed, (), None))))
    assert isinstance(called, Called)
    return CALLS[rule].unpacked(called.args, called.kwargs)


@pytest.mark.parametrize(
    "changes",
    [
        InstanceChanges(),
        InstanceChanges(title=None),
        InstanceChanges(title="unset", capacity=3),
        InstanceChanges(description="d", tags=frozenset({"avr:public", "avr:permanent"})),
    ],
)
def test_changes_come_back_with_what_is_left_as_it_is(changes: InstanceChanges) -> None:
    back = roundtrip("update", visitor(0, friends=(1, 2)), changes, 5)
    assert back == {"by": visitor(0, friends=(1, 2)), "changes": changes, "now": 5}
    assert (back["changes"].capacity is UNSET) == (changes.capacity is UNSET)


@pytest.mark.parametrize("at", [None, 1, 1.0, 2**53 + 1, 10**30, -1.5])
def test_numbers_come_back_as_they_came(at: float | None) -> None:
    back = roundtrip("speak", "p_1", "k", at, ("p_2",), b"\x00\xff", 5)
    assert back["at"] == at
    assert type(back["at"]) is type(at)
    assert (back["to"], back["data"]) == (("p_2",), b"\x00\xff")


def test_candidates_come_back_in_their_order() -> None:
    before = Candidates()
    for number, state in ((3, "waiting"), (1, "waiting"), (2, "admitted"), (4, "pending")):
        one = Candidate(user(number), number, None, friends=frozenset({user(9)}))
        before.put(state, one)  # type: ignore[arg-type]
    back = roundtrip("resume", before, {user(4): "by-leader"}, 5)
    assert list(back["before"].each()) == list(before.each())
    assert back["invited"] == {user(4): "by-leader"}


def test_arguments_that_fit_no_rule_are_refused() -> None:
    with pytest.raises(TypeError):
        CALLS["tick"].unpacked([1, 2, 3], {})
