"""An instance under any sequence of calls and times: what must hold throughout.

Hypothesis drives one `Instance` and looks at it from without: the state it shows, and what someone
who only hears its domain_events would believe. At the end the whole history is played again into a
fresh instance.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reileta.errors import ReiletaError
from reileta.records import UNSET, InstanceChanges, Unset
from reileta.rules.identity import Visitor
from reileta.rules.instance.access import ACCESS_TAGS
from reileta.rules.instance.events import (
    BannedUser,
    CandidateChanged,
    Closed,
    InstanceEvent,
    Joined,
    Left,
    MasterChanged,
    Muted,
    QueueChanged,
    Renamed,
    Unbanned,
    Unmuted,
    Updated,
)
from reileta.rules.instance.instance import Instance
from reileta.rules.instance.seats import Player
from tests.reileta.instances import OWNER, room, user, visitor

ADMIN = 5
numbers = st.integers(0, ADMIN)
others = st.integers(1, ADMIN - 1)
visitors = st.builds(
    lambda number, session, friends: visitor(
        number, session, friends=friends, admin=number == ADMIN
    ),
    numbers,
    st.integers(0, 1),
    st.frozensets(numbers, max_size=2),
)
sessions = st.builds(lambda number, session: f"s_{number}.{session}", numbers, st.integers(0, 1))
leaders = st.just(visitor(0)) | visitors  # the owner half of the time, or little would happen
measures = st.sampled_from(["kick", "ban", "unban", "mute", "unmute", "warn", "hug"])


def state(instance: Instance) -> tuple[Any, ...]:
    """All that is to be seen of an instance."""
    players = list(instance.players.values())
    return (
        instance.record,
        players,
        [instance.in_grace(one.session) for one in players],
        [instance.role_of(user(number)) for number in range(ADMIN + 1)],
        instance.master,
        instance.entries(),
        dict(instance.bans),
        dict(instance.invited),
        dict(instance.moderation.mutes),
        sorted(instance.audible),
        list(instance.retained()),
        instance.empty_since,
        instance.next_deadline(),
        instance.closed,
    )


class InstanceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.history: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = []
        # What one would believe who only hears what happened.
        self.heard_inside: dict[str, Player] = {}
        self.heard_entries: dict[str, str] = {}
        self.heard_master: str | None = None
        self.heard_bans: set[str] = set()
        self.heard_mutes: set[str] = set()
        self.heard_closed = False
        # The users by the time since when they are inside, and to whom mastership was handed.
        self.inside_since: dict[str, int] = {}
        self.handed: str | None = None
        # By player and key: the series and the `at` of the retained value.
        self.last_at: dict[tuple[str, str], tuple[int, float]] = {}

    @initialize(capacity=st.integers(1, 4), access=st.sampled_from(ACCESS_TAGS))
    def open(self, capacity: int, access: str) -> None:
        self.opened = (capacity, access)
        self.instance = self.make()
        self.heard_record = self.instance.record

    def make(self) -> Instance:
        capacity, access = self.opened
        return room(
            access=access,
            capacity=capacity,
            grace_ms=10,
            hold_ms=30,
            queue_grace_ms=60,
            empty_ms=200,
            candidates=6,
            invitations=4,
            retained_keys=2,
            retained_bytes=12,
            bans=3,
            mutes=2,
        )

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Calls, hears what happened, and sees that a call that raises changes nothing."""
        before = state(self.instance)
        line = self.line()
        inside = set(self.instance.seats.users)
        try:
            answer = getattr(self.instance, name)(*args, **kwargs)
        except ReiletaError as error:
            assert state(self.instance) == before, f"{name} raised, and changed something"
            self.history.append((name, args, kwargs, type(error)))
            return None
        self.history.append((name, args, kwargs, answer))
        out: list[InstanceEvent] = []
        if isinstance(answer, list):
            out = answer
        elif isinstance(answer, tuple):
            out = answer[1]
        self.hear(out)
        self.served_in_order(line, inside, out)
        return answer

    def hear(self, out: list[InstanceEvent]) -> None:
        assert sum(isinstance(one, QueueChanged) for one in out) <= 1
        for one in out:
            match one:
                case Joined(player, role):
                    assert player.id not in self.heard_inside
                    assert role == self.instance.role_of(player.user)
                    self.heard_inside[player.id] = player
                    self.inside_since.setdefault(player.user, len(self.history))
                case Left(player):
                    del self.heard_inside[player.id]
                    if player.user not in {each.user for each in self.heard_inside.values()}:
                        del self.inside_since[player.user]
                        if self.handed == player.user:
                            self.handed = None
                case Renamed(player):
                    self.heard_inside[player.id] = player
                case MasterChanged(master):
                    assert master != self.heard_master
                    self.heard_master = master
                case CandidateChanged(candidate, entry):
                    if entry is None:
                        del self.heard_entries[candidate]
                    else:
                        self.heard_entries[candidate] = entry.state
                case QueueChanged(waiting):
                    assert waiting == self.instance.queued
                case BannedUser(ban):
                    self.heard_bans.add(ban.user)
                case Unbanned(who):
                    self.heard_bans.remove(who)
                case Muted(who):
                    self.heard_mutes.add(who)
                case Unmuted(who):
                    self.heard_mutes.remove(who)
                case Updated(record):
                    self.heard_record = record
                case Closed():
                    self.heard_closed = True
                    self.heard_master = None
                case _:
                    pass

    def line(self) -> dict[str, bool]:
        """Those who wait, in order, and whether they precede the others."""
        candidates = self.instance.candidates
        waiting = [one for state, one in candidates.each() if state == "waiting"]
        return {one.user: one.precedes for one in waiting}

    def served_in_order(
        self, before: dict[str, bool], inside: set[str], out: list[InstanceEvent]
    ) -> None:
        """Of those who waited, nobody got a seat before one that still waits further in front.

        Those whose role has just changed have another place. A user who was `inside` may have its
        own seat held for it.
        """
        now = {one.user: one.state for one in self.instance.entries()}
        precede = {one.user: one.precedes for one in self.instance.candidates.all()}
        line = [who for who, first in before.items() if precede.get(who, first) == first]
        still = [place for place, who in enumerate(line) if now.get(who) == "waiting"]
        served = [place for place, who in enumerate(line) if now.get(who) == "admitted"]
        assert not still or not served or max(served) < min(still)
        new = {one.user for one in out if isinstance(one, CandidateChanged) and one.entry}
        came = {who for who in new if now.get(who) == "admitted"} - set(before) - inside
        assert not still or not came, "got a seat before those in line"
        for first in (True, False):
            waits = [who for who, precedes in self.line().items() if precedes == first]
            stood = [line[place] for place in still if before[line[place]] == first]
            known = [who for who in waits if who in stood]
            assert known == stood
            came_later = [who for who in waits if who not in before]
            assert waits[len(waits) - len(came_later) :] == came_later

    @rule(ms=st.sampled_from([0, 1, 9, 10, 29, 30, 60]), late=st.booleans())
    def time_passes(self, ms: int, late: bool) -> None:
        self.now += ms
        due = self.instance.next_deadline()
        if not late and due is not None and due <= self.now:
            self.call("tick", self.now)
            due = self.instance.next_deadline()
            assert due is None or due > self.now
            assert not self.instance.ended(self.now) or self.instance.closed

    @rule(by_ms=st.sampled_from([-1000, -7, 7, 1000]))
    def clock_is_set(self, by_ms: int) -> None:
        """No wait but a ban is longer or shorter for it; a mute may be shorter."""
        self.time_passes(0, late=False)  # or a ban that ran out would be in force again
        waits = self.waits()
        self.now += by_ms
        self.call("clock_was_set", by_ms)
        assert self.waits() == waits

    def waits(self) -> list[int]:
        """How long each wait lasts from now on: grace periods, held seats, the queue."""
        instance = self.instance
        expiring = (one.expires_at for one in instance.candidates.all())
        ends = [*instance.seats.deadlines, *(one for one in expiring if one is not None)]
        if instance.empty_since is not None:
            ends.append(instance.empty_since)
        return [one - self.now for one in ends]

    @rule(who=visitors, silent=st.frozensets(sessions, max_size=3))
    def join(self, who: Visitor, silent: frozenset[str]) -> None:
        waits = [one for one in self.instance.entries() if one.state == "waiting"]
        holds = self.heard_entries.get(who.user) == "admitted"
        inside = self.instance.seats.of_session(who.session)
        lost = self.lost_of(who.user, silent)
        answer = self.call("join", who, self.now, silent=silent)
        if answer is not None:
            assert holds or not waits or inside is not None or lost, "jumped the queue"
            assert inside is None or answer == (inside, [])
            if inside is None:
                assert not self.lost_of(who.user, silent - {who.session}), "stands there twice"
                assert lost == {one.player.session for one in answer[1] if isinstance(one, Left)}
            assert not self.instance.in_grace(who.session)

    def lost_of(self, user: str, silent: frozenset[str]) -> set[str]:
        """The user's sessions inside that have no socket, or are `silent`."""
        inside = {one.session for one in self.instance.players_of(user)}
        return {one for one in inside if one in silent or self.instance.in_grace(one)}

    @rule(session=sessions, closed=st.booleans())
    def lost(self, session: str, closed: bool) -> None:
        self.call("disconnect", session, self.now, closed=closed)

    @rule(session=sessions)
    def leave(self, session: str) -> None:
        self.call("leave", session, self.now)

    @rule(who=visitors, silent=st.frozensets(sessions, max_size=3))
    def candidate(self, who: Visitor, silent: frozenset[str]) -> None:
        had_seat = bool(self.lost_of(who.user, silent))
        waited = self.instance.queued
        answer = self.call("candidate", who, self.now, silent=silent)
        if answer is not None and had_seat:
            assert answer[0].state == "admitted" or self.instance.queued > waited

    @rule(number=others)
    def withdraw(self, number: int) -> None:
        self.call("withdraw", user(number), self.now)

    @rule(by=leaders, number=numbers)
    def admit(self, by: Visitor, number: int) -> None:
        self.call("admit", by, user(number), self.now)

    @rule(by=leaders, number=others)
    def refuse(self, by: Visitor, number: int) -> None:
        self.call("refuse", by, user(number), self.now)

    @rule(number=others)
    def absent(self, number: int) -> None:
        self.call("absent", user(number), self.now)

    @rule(number=others)
    def present(self, number: int) -> None:
        self.call("present", user(number))

    @rule(by=leaders, number=others, measure=measures, lasts=st.sampled_from([None, 15]))
    def moderate(self, by: Visitor, number: int, measure: str, lasts: int | None) -> None:
        until = self.now + lasts if lasts and measure in ("ban", "mute") else None
        self.call("moderate", by, user(number), measure, None, until, self.now)

    @rule(number=numbers, name=st.sampled_from(["Zoe", "User 1"]))
    def rename(self, number: int, name: str) -> None:
        self.call("rename", user(number), name, self.now)

    @rule(number=others, name=st.booleans())
    def moderators(self, number: int, name: bool) -> None:
        method = "add_moderator" if name else "remove_moderator"
        self.call(method, visitor(0), user(number), self.now)

    @precondition(lambda self: self.heard_inside)
    @rule(data=st.data())
    def transfer_master(self, data: st.DataObject) -> None:
        to = data.draw(st.sampled_from(sorted(self.heard_inside)))
        if self.call("transfer_master", visitor(0), to, self.now) is not None:
            self.handed = self.heard_inside[to].user

    @precondition(lambda self: self.heard_inside)
    @rule(
        data=st.data(),
        key=st.sampled_from([None, "a", "b", "c"]),
        at=st.sampled_from([None, 1, 2.5]),
        size=st.integers(0, 12),
        series=st.integers(0, 2),
    )
    def speak(
        self, data: st.DataObject, key: str | None, at: float | None, size: int, series: int
    ) -> None:
        speaker = data.draw(st.sampled_from(sorted(self.heard_inside)))
        some = st.none() | st.lists(st.sampled_from(["p_1", "p_2", "p_9"])).map(tuple)
        to, text = data.draw(some), b"x" * size
        spoken = self.call("speak", speaker, key, at, to, text, self.now, series)
        if spoken is None or key is None:
            return
        last = self.last_at.get((speaker, key))
        backwards = last is not None and at is not None and last[0] == series and at < last[1]
        assert spoken.dropped == backwards
        if to is None and not spoken.dropped:
            if at is None:
                self.last_at.pop((speaker, key), None)
            else:
                self.last_at[speaker, key] = (series, at)

    @rule(
        by=leaders,
        capacity=st.just(UNSET) | st.integers(0, 5),
        tags=st.just(UNSET) | st.sampled_from(ACCESS_TAGS).map(lambda tag: frozenset({tag})),
    )
    def update(self, by: Visitor, capacity: int | Unset, tags: frozenset[str] | Unset) -> None:
        changes = InstanceChanges(capacity=capacity, tags=tags)
        self.call("update", by, changes, self.now)

    @precondition(lambda self: len(self.history) > 45)
    @rule(by=visitors)
    def close(self, by: Visitor) -> None:
        self.call("close", by, self.now)

    @invariant()
    def seats_never_exceed_the_capacity(self) -> None:
        if self.history:
            instance = self.instance
            held = sum(one.state == "admitted" for one in instance.entries())
            assert instance.taken == len(instance.players) + held <= instance.record.capacity
            assert (instance.empty_since is None) == bool(instance.taken) or instance.closed

    @invariant()
    def nobody_waits_for_a_free_seat_or_from_inside(self) -> None:
        if self.history:
            instance = self.instance
            entries = self.instance.entries()
            line = [one.position for one in entries if one.state == "waiting"]
            assert line == list(range(1, len(line) + 1))
            assert not line or self.instance.free == 0
            users = [one.user for one in entries]
            assert len(users) == len(set(users))
            assert sum(not one.precedes for one in instance.candidates.all()) <= 6
            precede = list(self.line().values())
            assert precede == sorted(precede, reverse=True)
            for one in instance.candidates.all():
                assert one.precedes == instance.precedes(one.user, admin=one.admin)
            assert not set(users) & {one.user for one in self.instance.players.values()}

    @invariant()
    def the_banned_are_out(self) -> None:
        if self.history:
            held = set(self.instance.bans) - {OWNER, user(ADMIN)}
            assert not held & set(self.heard_entries)
            assert not held & {one.user for one in self.instance.players.values()}
            assert not held & set(self.instance.invited)

    @invariant()
    def the_master_is_the_longest_inside_unless_handed_over(self) -> None:
        if self.history:
            longest = min(self.inside_since, key=self.inside_since.__getitem__, default=None)
            current = self.instance.master
            assert (current is None) == (not self.instance.players)
            if self.handed is not None:
                assert current == self.handed
            else:
                assert current == longest

    @invariant()
    def who_only_hears_knows_all(self) -> None:
        if self.history:
            instance = self.instance
            assert self.heard_inside == dict(instance.players)
            assert self.heard_entries == {one.user: one.state for one in instance.entries()}
            assert self.heard_master == instance.master
            assert self.heard_bans == set(instance.bans)
            assert self.heard_mutes == set(instance.moderation.mutes)
            assert self.heard_record == instance.record
            assert self.heard_closed == instance.closed

    @invariant()
    def what_is_kept_is_bounded_and_of_those_inside(self) -> None:
        if self.history:
            instance = self.instance
            for player in {one.player for one in instance.retained()}:
                own = [one for one in instance.retained() if one.player == player]
                assert player in instance.players
                assert len(own) <= 2
                assert sum(len(one.key) + len(one.data) for one in own) <= 12
            assert len(instance.invited) <= 4
            assert len(instance.bans) <= 3
            assert len(instance.moderation.mutes) <= 2
            muted = {
                one.id for one in instance.players.values() if one.user in instance.moderation.mutes
            }
            # A mute that ran out before its tick may be audible again already.
            assert set(instance.players) - muted <= instance.audible <= set(instance.players)

    def teardown(self) -> None:
        if not self.history:
            return
        again = self.make()
        for name, args, kwargs, answer in self.history:
            try:
                replayed = getattr(again, name)(*args, **kwargs)
            except ReiletaError as error:
                replayed = type(error)
            assert replayed == answer
        assert state(again) == state(self.instance)


class FullMachine(InstanceMachine):
    """The same in a small public instance, where there is always a queue."""

    @initialize(capacity=st.just(2), access=st.just("avr:public"))
    def open(self, capacity: int, access: str) -> None:
        super().open(capacity, access)
        for number in (1, 2, 3):
            self.call("join", visitor(number), self.now)
            if number == 3:
                self.call("candidate", visitor(number), self.now)


_SETTINGS = settings(max_examples=100, stateful_step_count=50, deadline=None, derandomize=True)

TestInstance = InstanceMachine.TestCase
TestInstance.settings = _SETTINGS
TestFullInstance = FullMachine.TestCase
TestFullInstance.settings = _SETTINGS
