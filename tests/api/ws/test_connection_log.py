from __future__ import annotations

import logging

import pytest
import structlog
import trio
from structlog.testing import capture_logs

from actors.runtime.trace import Span
from api.ws.connection_log import ConnectionLog, debugging
from reileta.clock import SystemClock
from reileta.observability.activity_log import ActivityLog
from reileta.protocol import commands
from tests import logs
from tests.api.ws.fake_transport import FakeTransport, principal

SPAN = Span(0xABC)
SAMPLED = Span(0xDEF, sampled=True)
NAMES = frozenset({commands.PING, commands.INSTANCE_JOIN, commands.INSTANCE_LEAVE})


def connection_log(number: int = 1, *, debug: bool = True) -> ConnectionLog:
    return ConnectionLog(number, NAMES, ActivityLog(SystemClock()), debug=debug)


def test_traces_are_looked_at_when_sampled_or_at_debug() -> None:
    quiet, loud = connection_log(debug=False), connection_log()
    assert (quiet.observes(SPAN), quiet.observes(SAMPLED)) == (False, True)
    assert (loud.observes(SPAN), loud.observes(SAMPLED)) == (True, True)


@pytest.mark.parametrize(("level", "said"), [("debug", True), ("info", False)])
def test_debugging_is_what_the_log_is_set_to(level: str, said: bool) -> None:
    with logs.restored():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(
                logging.getLevelNamesMapping()[level.upper()]
            )
        )
        assert debugging() is said


async def test_events_name_their_trace_and_socket_at_the_trace_s_level(
    nursery: trio.Nursery,
) -> None:
    with capture_logs() as entries:
        connection_log(7).opened(SPAN)
        connection_log(8).closed(SAMPLED, FakeTransport(nursery), principal())
        connection_log(9).sent(SPAN)
    assert entries == [
        {"event": "socket.opened", "trace": f"{0xABC:016x}", "socket": 7, "log_level": "debug"},
        {
            "event": "socket.closed",
            "trace": f"{0xDEF:016x}",
            "socket": 8,
            "code": 1006,
            "by": "nobody",
            "user": principal().user.id,
            "username": principal().user.username,
            "session": principal().session_id,
            "log_level": "info",
        },
        {
            "event": "frames.sent",
            "trace": f"{0xABC:016x}",
            "socket": 9,
            "frames": 1,
            "sockets": 1,
            "log_level": "debug",
        },
    ]


async def test_a_command_is_timed_and_its_refusal_told(autojump_clock: object) -> None:
    log = connection_log()
    with capture_logs() as entries:
        begun = trio.current_time()
        await trio.sleep(0.25)
        log.served(SPAN, commands.INSTANCE_JOIN, begun, None)
        log.served(SPAN, commands.INSTANCE_LEAVE, begun, 39)
    done, refused = entries
    assert (done["command"], done["us"]) == ("instance-join", 250_000)
    assert "error" not in done
    assert (refused["command"], refused["error"]) == ("instance-leave", 39)


@pytest.mark.parametrize("command", ["ua_0123456789abcdef", "", "x" * 60_000, None])
def test_what_is_no_command_is_not_quoted(command: str | None) -> None:
    with capture_logs() as entries:
        connection_log().received(SPAN, command, 12)
        connection_log().received(SPAN, commands.PING, 12)
    assert [one["command"] for one in entries] == ["unknown", "ping"]
    assert [one["bytes"] for one in entries] == [12, 12]
