from __future__ import annotations

from dataclasses import replace

from reileta.rules.instance.candidates import Candidate, Candidates, Entry
from tests.reileta.instances import user


def candidate(number: int, absent_until: int | None = None) -> Candidate:
    return Candidate(user(number), since=number, absent_until=absent_until)


def test_positions_count_from_one_in_order_of_coming() -> None:
    line = Candidates()
    line.put("pending", candidate(1))
    line.put("waiting", candidate(3))
    line.put("waiting", candidate(2))
    line.put("admitted", replace(candidate(4), held_until=50))
    assert line.entries() == (
        Entry(user(4), "admitted", None, 4, 50),
        Entry(user(3), "waiting", 1, 3, None),
        Entry(user(2), "waiting", 2, 2, None),
        Entry(user(1), "pending", None, 1, None),
    )
    assert [line.entry_of(user(n)) for n in (4, 3, 2, 1)] == list(line.entries())
    assert line.entry_of(user(9)) is None
    assert (len(line), line.waiting, line.held) == (4, 2, 1)
    first = line.first_waiting()
    assert first is not None
    assert first.user == user(3)


def test_a_candidate_is_in_one_place() -> None:
    line = Candidates()
    line.put("pending", candidate(1))
    line.put("waiting", candidate(1))
    assert (len(line), line.state_of(user(1))) == (1, "waiting")
    assert line.remove(user(1)) == "waiting"
    assert line.remove(user(1)) is None
    assert line.first_waiting() is None


def test_version_counts_what_others_can_see() -> None:
    line = Candidates()
    versions = [line.version]
    line.put("waiting", candidate(1))
    versions.append(line.version)
    line.remove(user(1))
    versions.append(line.version)
    assert versions == sorted(set(versions))
    line.remove(user(1))
    assert line.version == versions[-1]


def test_a_held_seat_outlives_a_lost_socket() -> None:
    line = Candidates()
    line.put("admitted", replace(candidate(1), held_until=300))
    line.put("waiting", candidate(2))
    line.put("pending", candidate(3))
    for one in (1, 2, 3, 9):
        line.absent(user(one), 100)
    assert line.overdue(99) == []
    assert line.overdue(100) == [user(2), user(3)]
    line.absent(user(2), None)
    assert line.overdue(300) == [user(3), user(1)]


def test_everyones_position_at_once() -> None:
    candidates = Candidates()
    for state, name in (("waiting", "b"), ("pending", "p"), ("waiting", "a"), ("admitted", "x")):
        candidates.put(state, Candidate(name, 0, None))  # type: ignore[arg-type]
    assert candidates.positions() == {"b": 1, "a": 2}
    assert list(candidates.users()) == ["x", "b", "a", "p"]
    assert [(state, one.user) for state, one in candidates.each()] == [
        ("admitted", "x"),
        ("waiting", "b"),
        ("waiting", "a"),
        ("pending", "p"),
    ]
    for name, place in candidates.positions().items():
        entry = candidates.entry_of(name)
        assert entry is not None
        assert entry.position == place
