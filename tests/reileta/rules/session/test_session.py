"""The rules of a session, by sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from reileta.errors import (
    AlreadyConnected,
    CredentialInvalid,
    DatabaseUnavailable,
    PermissionDenied,
    SessionNotFound,
)
from reileta.records import HeldResource, ResourceRecord
from reileta.rules.session.session import (
    AbsenceTimedOut,
    AllTokensExpired,
    Ended,
    PatchRefused,
    ResourceChanged,
    Session,
    SessionLimits,
    SocketClosed,
    State,
    StateChanged,
    StateEvent,
)
from reileta.settings import Settings

HELD = HeldResource(
    ResourceRecord(17, "document", "u_1", "Notes", None, 1, 0, 0), fence=3, until=60
)
TOKEN, OTHER = b"one", b"two"


def session(
    *,
    autopilot: bool = False,
    state: State | None = None,
    version: int = 0,
    held: HeldResource | None = None,
    tokens: Mapping[bytes, int] | None = None,
    limits: SessionLimits | None = None,
) -> Session:
    return Session(
        "s_1",
        autopilot=autopilot,
        state={} if state is None else state,
        version=version,
        held=held,
        tokens={TOKEN: 1000, OTHER: 2000} if tokens is None else tokens,
        limits=limits or SessionLimits(away_ms=60, state_bytes=64, waiting=3),
        now=0,
    )


def connected(*, autopilot: bool = False) -> Session:
    one = session(autopilot=autopilot)
    one.connect("x", TOKEN, 0, exclusive=True)
    one.connect("y", OTHER, 0, exclusive=True)
    return one


# State


def test_an_ack_means_that_the_change_is_in_the_database() -> None:
    one = connected()
    one.change({"a": 1}, "x", "first")
    assert (one.state, one.version, one.unsaved) == ({}, 0, 1)
    save = one.save()
    assert save is not None
    assert (one.state, one.version) == ({}, 0)
    assert one.saved() == [StateChanged(1, {"a": 1}, StateEvent({"a": 1}, "x", "first"))]
    assert (one.state, one.version, one.unsaved) == ({"a": 1}, 1, 0)


def test_what_another_server_wrote_is_told_and_what_waits_is_kept() -> None:
    one = connected()
    one.change({"a": 1}, "x", 1)
    one.save()
    assert one.stale({"b": 1}, 4) == [StateChanged(4, {"b": 1}, None)]
    error = DatabaseUnavailable()
    assert one.abandon(error) == [PatchRefused(StateEvent({"a": 1}, "x", 1), error)]


def test_sessions_owned_by_an_autopilot_can_not_maintain_a_non_empty_state() -> None:
    one = connected(autopilot=True)
    with pytest.raises(PermissionDenied):
        one.change({"a": 1}, "x", 1)
    assert one.save() is None


# Tokens and sockets


def test_two_sockets_of_two_tokens_share_a_session() -> None:
    assert connected().sockets == ("x", "y")


def test_there_is_one_of_these_sockets_per_token() -> None:
    one = connected()
    with pytest.raises(AlreadyConnected):
        one.connect("z", TOKEN, 1, exclusive=True)
    one.connect("r", TOKEN, 1, exclusive=False)
    one.disconnect("x", 1)
    one.connect("z", TOKEN, 1, exclusive=True)


@pytest.mark.parametrize(("token", "now"), [(b"none", 0), (TOKEN, 1000)])
def test_a_socket_needs_a_token_that_is_good(token: bytes, now: int) -> None:
    with pytest.raises(CredentialInvalid):
        session().connect("x", token, now, exclusive=True)


def test_a_token_that_is_killed_or_expires_takes_its_sockets_along() -> None:
    one = connected()
    one.connect("r", TOKEN, 0, exclusive=False)
    assert one.kill(TOKEN, 5) == [
        SocketClosed("x", TOKEN, "killed"),
        SocketClosed("r", TOKEN, "killed"),
    ]
    assert one.kill(TOKEN, 5) == []
    assert one.sockets == ("y",)
    assert one.next_deadline() == 2000
    assert one.tick(1999) == []
    assert one.tick(2000) == [SocketClosed("y", OTHER, "expired"), AllTokensExpired()]
    assert not one.present


def test_a_refreshed_token_keeps_its_sockets() -> None:
    one = connected()
    one.admit(TOKEN, 5000)
    assert one.tick(1000) == []
    assert one.sockets == ("x", "y")


def test_a_session_whose_tokens_are_all_gone_asks_for_its_end_until_it_is_answered() -> None:
    one = session(tokens={TOKEN: 10})
    assert one.tick(10) == [AllTokensExpired()]
    assert one.tick(11) == []
    assert one.next_deadline() == 70
    assert one.tick(70) == [AllTokensExpired()]
    one.admit(OTHER, 500)
    assert one.next_deadline() == 500
    assert one.tick(130) == []
    assert one.kill(OTHER, 131) == [AllTokensExpired()]


def test_the_end_closes_all_and_refuses_what_waits() -> None:
    one = connected()
    one.took(HELD, 0)
    one.change({"a": 1}, "x", 1)
    refused, *rest = one.end()
    assert isinstance(refused, PatchRefused)
    assert isinstance(refused.error, SessionNotFound)
    assert rest == [SocketClosed("x", TOKEN, "ended"), SocketClosed("y", OTHER, "ended"), Ended()]
    assert (one.state, one.held, one.sockets, one.next_deadline()) == ({}, None, (), None)
    assert one.end() == one.tick(10_000) == one.kill(TOKEN, 0) == one.took(HELD, 0) == []
    with pytest.raises(SessionNotFound):
        one.connect("x", TOKEN, 0, exclusive=True)
    with pytest.raises(SessionNotFound):
        one.change({}, "x", 1)
    one.admit(TOKEN, 10)
    assert dict(one.tokens) == {}


# The resource


def test_a_session_is_told_what_it_has() -> None:
    one = connected()
    assert one.took(HELD, 0) == [ResourceChanged(HELD)]
    assert one.dropped(17, 3) == [ResourceChanged(None)]


def test_old_news_of_a_resource_is_no_news() -> None:
    one = connected()
    newer = replace(HELD, fence=4)
    one.took(newer, 0)
    assert one.took(HELD, 0) == one.dropped(17, 3) == one.dropped(18, 4) == []
    written = replace(newer, resource=replace(newer.resource, version=2))
    assert one.took(written, 0) == [ResourceChanged(written)]
    assert one.took(newer, 0) == []
    assert one.held == written


def test_a_session_without_a_websocket_loses_its_resource_after_60_s() -> None:
    one = connected()
    one.took(HELD, 0)
    one.disconnect("x", 5)
    one.disconnect("y", 10)
    one.disconnect("y", 30)
    assert one.next_deadline() == 70
    assert one.tick(69) == []
    assert one.tick(70) == [AbsenceTimedOut(HELD)]
    assert one.held == HELD, "until the database says so"
    assert one.tick(71) == []
    assert one.tick(130) == [AbsenceTimedOut(HELD)], "should nobody have answered"


def test_a_websocket_that_comes_back_in_time_keeps_the_resource() -> None:
    one = connected()
    one.took(HELD, 0)
    one.disconnect("x", 5)
    one.disconnect("y", 10)
    one.connect("z", TOKEN, 69, exclusive=True)
    assert one.tick(500) == []


def test_a_resource_acquired_without_a_websocket_is_kept_as_long() -> None:
    one = session()
    one.took(HELD, 100)
    assert one.next_deadline() == 160


def test_a_session_that_was_recovered_has_as_long_to_come_back() -> None:
    one = session(held=HELD, state={"a": 1}, version=9)
    assert (one.state, one.version, one.next_deadline()) == ({"a": 1}, 9, 60)


def test_a_resource_that_another_server_keeps_is_asked_for_later() -> None:
    one = session(held=HELD)
    one.tick(60)
    one.kept_until(100)
    assert one.next_deadline() == 100
    assert one.held == replace(HELD, until=100)
    assert one.tick(100) == [AbsenceTimedOut(replace(HELD, until=100))]


def test_the_limits_are_those_of_the_settings() -> None:
    assert SessionLimits.from_settings(Settings()) == SessionLimits()
    limits = SessionLimits.from_settings(Settings(away_s=1.5, ack_timeout_ms=200))
    assert (limits.away_ms, limits.ack_timeout_ms) == (1500, 200)


@pytest.mark.parametrize("by_ms", [-1000, 500])
def test_a_session_is_away_as_long_if_the_clock_is_set_meanwhile(by_ms: int) -> None:
    one = session(held=HELD)
    one.clock_was_set(by_ms)
    assert one.next_deadline() == min(60 + by_ms, 1000)
    assert one.tick(59 + by_ms) == []
    assert one.tick(60 + by_ms) == [AbsenceTimedOut(HELD)]


def test_tokens_expire_by_the_clock_as_it_is() -> None:
    one = session()
    one.clock_was_set(500)
    assert one.tick(999) == []
    assert set(one.tokens) == {TOKEN, OTHER}
    one.tick(1000)
    assert set(one.tokens) == {OTHER}
