"""Tickets for direct connections: what a node takes, and what it refuses."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from reileta.errors import TicketInvalid
from reileta.security.server_key import ServerKey
from reileta.security.tickets import TICKET_BYTES, VALID_S, Ticket, issue, new_id, read

NOW = 1_790_000_000
KEY = ServerKey.generate()
TICKET = Ticket(
    server="play.example.org",
    node="n_1",
    instance="i_1",
    epoch=5,
    player="p_1",
    user="u_1@play.example.org",
    name="Ada",
    role="normal",
    expires_at=NOW + VALID_S,
    id=new_id(),
)
CLAIMS = {
    "iss": TICKET.server,
    "aud": TICKET.node,
    "sub": TICKET.user,
    "ins": TICKET.instance,
    "epo": TICKET.epoch,
    "ply": TICKET.player,
    "name": TICKET.name,
    "role": TICKET.role,
    "exp": TICKET.expires_at,
    "jti": TICKET.id,
}


def reads(
    text: str,
    *,
    key: str = KEY.public_base64url,
    now_s: float = NOW,
    server: str = TICKET.server,
    node: str = TICKET.node,
) -> Ticket:
    return read(text, key, server=server, node=node, now_s=now_s)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed(claims: object, **header: Any) -> str:
    """Signed with the right key, whatever it says."""
    head = {"alg": "Ed25519", "typ": "avr-ticket+jwt", **header}
    text = f"{part(head)}.{part(claims)}"
    signature = base64.urlsafe_b64encode(KEY.sign(text.encode())).rstrip(b"=").decode()
    return f"{text}.{signature}"


def test_a_ticket_says_what_was_signed() -> None:
    assert reads(issue(KEY, TICKET)) == TICKET
    assert reads(signed(CLAIMS)) == TICKET
    assert set(asdict(TICKET).values()) == set(CLAIMS.values())


@pytest.mark.parametrize("now_s", [NOW + VALID_S, NOW + VALID_S + 1, NOW - 301])
def test_it_is_valid_for_a_while(now_s: float) -> None:
    with pytest.raises(TicketInvalid):
        reads(issue(KEY, TICKET), now_s=now_s)
    assert reads(issue(KEY, TICKET), now_s=NOW + VALID_S - 1) == TICKET


def test_another_node_and_another_server_refuse_it() -> None:
    with pytest.raises(TicketInvalid):
        reads(issue(KEY, TICKET), node="n_2")
    with pytest.raises(TicketInvalid):
        reads(issue(KEY, TICKET), server="b.example")


def test_a_key_that_was_replaced_does_not_count() -> None:
    with pytest.raises(TicketInvalid):
        reads(issue(KEY, TICKET), key=ServerKey.generate().public_base64url)


def test_the_public_key_is_not_taken_for_a_secret() -> None:
    raw = base64.urlsafe_b64decode(KEY.public_base64url + "=")
    for secret in (raw, KEY.public_base64url.encode()):
        key = OctKey.import_key(secret)
        forged = jwt.encode({"alg": "HS256", "typ": "avr-ticket+jwt"}, dict(CLAIMS), key)
        with pytest.raises(TicketInvalid):
            reads(forged)


@pytest.mark.parametrize(
    "alg", ["none", "None", "HS256", "EdDSA", "ES256", "", 7, None, ["Ed25519"]]
)
def test_no_other_algorithm_is_taken(alg: object) -> None:
    for text in (signed(CLAIMS, alg=alg), f"{part({'alg': alg})}.{part(CLAIMS)}."):
        with pytest.raises(TicketInvalid):
            reads(text)


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"crit": ["x"]},
        {"crit": ["b64"], "b64": False},
    ],
)
def test_other_headers_are_refused(header: dict[str, Any]) -> None:
    with pytest.raises(TicketInvalid):
        reads(signed(CLAIMS, **header))


@pytest.mark.parametrize("name", list(CLAIMS))
@pytest.mark.parametrize("value", [None, 7.5, [], {}, True, ["x"]])
def test_each_claim_has_its_type(name: str, value: object) -> None:
    with pytest.raises(TicketInvalid):
        reads(signed({**CLAIMS, name: value}))
    with pytest.raises(TicketInvalid):
        reads(signed({other: CLAIMS[other] for other in CLAIMS if other != name}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "é.é.é",
        "a.b.c.d.e",
        "\udc00..",
        "e30.e30.",
        signed([]),
        signed("x"),
        signed(CLAIMS)[:-2],
        signed(CLAIMS) + "A",
        "x" * (TICKET_BYTES + 1),
        "[" * TICKET_BYTES,
    ],
)
def test_what_is_not_a_ticket_is_refused(text: str) -> None:
    with pytest.raises(TicketInvalid):
        reads(text)


def test_a_ticket_can_not_be_changed() -> None:
    head, _, signature = issue(KEY, TICKET).split(".")
    for change in (replace(TICKET, player="p_2"), replace(TICKET, expires_at=NOW + 31)):
        _, claims, _ = issue(ServerKey.generate(), change).split(".")
        with pytest.raises(TicketInvalid):
            reads(f"{head}.{claims}.{signature}")
