from __future__ import annotations

import pytest

from reileta.rules.gateway import (
    MINUTE_MS,
    Passed,
    is_claimed,
    is_proved,
    named_by_connection,
    passed_by,
    proof,
)

PASSED = Passed(True, "play.example.org", "192.0.2.7", "00f067aa0ba902b7")
SECRET = b"a secret of gateways and registries"
GOOD = [
    (b"avr-gateway", b"true play.example.org"),
    (b"avr-client", b"192.0.2.7"),
    (b"avr-trace", b"00f067aa0ba902b7"),
    (b"avr-proof", b"00"),
]


@pytest.mark.parametrize(
    "name",
    [
        *("AVR-Client", "avr_client", "Avr-Anything", "AVR-GATEWAY", "avr-proof", "AVR_Trace"),
        *("X-Forwarded-For", "x_forwarded_for", "X-FORWARDED-HOST", "X-Forwarded-Proto"),
        *("x-forwarded-anything", "X_Forwarded-For", "Forwarded", "FORWARDED"),
    ],
)
def test_gateways_drop_what_only_they_may_say(name: str) -> None:
    assert is_claimed(name)


@pytest.mark.parametrize("name", ["Authorization", "X-Trace-Id", "Host", "X-Forward", "Avrx"])
def test_other_headers_pass(name: str) -> None:
    assert not is_claimed(name)


def test_what_a_gateway_says_is_read() -> None:
    assert passed_by(GOOD) == (PASSED, "00")
    assert passed_by(GOOD[:3]) == (PASSED, "")
    assert PASSED.gateway_header == "true play.example.org"


@pytest.mark.parametrize(
    "headers",
    [
        GOOD[1:],
        [GOOD[0], *GOOD[2:]],
        GOOD[:2],
        [*GOOD, (b"avr-client", b"192.0.2.7")],
        [*GOOD, (b"avr-gateway", b"false evil.example")],
        [*GOOD[:1], (b"avr-client", b"192.0.2.7, 192.0.2.8"), *GOOD[2:]],
        [*GOOD[:1], (b"avr-client", b" 192.0.2.7"), *GOOD[2:]],
        [*GOOD[:1], (b"avr-client", b"192.0.2.07"), *GOOD[2:]],
        [*GOOD[:1], (b"avr-client", b"2001:DB8::1"), *GOOD[2:]],
        [*GOOD[:1], (b"avr-client", b"localhost"), *GOOD[2:]],
        [(b"avr-gateway", b"TRUE play.example.org"), *GOOD[1:]],
        [(b"avr-gateway", b"true play.example.org/evil"), *GOOD[1:]],
        [(b"avr-gateway", b"true"), *GOOD[1:]],
        [*GOOD[:2], (b"avr-trace", b"00f067aa0ba902b7x"), GOOD[3]],
        [*GOOD[:2], (b"avr-trace", b"00F067AA0BA902B7"), GOOD[3]],
    ],
)
def test_what_is_not_as_a_gateway_writes_it_is_not_believed(
    headers: list[tuple[bytes, bytes]],
) -> None:
    assert passed_by(headers) is None


def test_a_proof_holds_for_its_request_and_for_a_minute() -> None:
    now = 1_790_000_000_000
    good = proof(SECRET, PASSED, "GET", b"/api/users?limit=2", now)

    def proved(
        given: str = good,
        secret: bytes = SECRET,
        passed: Passed = PASSED,
        method: str = "GET",
        target: bytes = b"/api/users?limit=2",
        at: int = now,
    ) -> bool:
        return is_proved(given, secret, passed, method, target, at)

    assert proved()
    assert proved(at=now + MINUTE_MS)
    assert proved(at=now - MINUTE_MS)
    assert not proved(at=now + 2 * MINUTE_MS)
    assert not proved(at=now - 2 * MINUTE_MS)
    assert not proved("")
    assert not proved("é" * 64)
    assert not proved(good.upper())
    assert not proved(secret=b"another secret of thirty-two bytes")
    assert not proved(method="POST")
    assert not proved(target=b"/api/users?limit=3")
    for changed in (
        Passed(False, "play.example.org", "192.0.2.7", "00f067aa0ba902b7"),
        Passed(True, "evil.example.org", "192.0.2.7", "00f067aa0ba902b7"),
        Passed(True, "play.example.org", "192.0.2.8", "00f067aa0ba902b7"),
        Passed(True, "play.example.org", "192.0.2.7", "00f067aa0ba902b8"),
    ):
        assert not proved(passed=changed)


def test_a_client_can_t_have_host_and_length_removed() -> None:
    named = named_by_connection(["close, X-Own ,", "HOST, Content-Length"])
    assert named == {"close", "x-own", ""}
