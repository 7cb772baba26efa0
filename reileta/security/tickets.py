"""Tickets: with one, a client connects to an instance node directly. Signed JWTs.

The server signs a ticket for one player, one instance and one node; the node checks it by itself,
with the server's public key. It is valid for `VALID_S`, and once: the node remembers its id until
then. A node that starts again remembers nothing, but it also hosts no instance any more: the server
gives it each instance anew, in a new epoch. A ticket names the epoch in which it was made, so
tickets of before are refused, whatever the clocks of node and server show.

A ticket is the way in, and nothing else: who is inside, the server tells the node.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from reileta.errors import TicketInvalid
from reileta.security.server_key import ServerKey

ALGORITHM: Final = "Ed25519"
TYPE: Final = "avr-ticket+jwt"
VALID_S: Final = 30
AHEAD_S: Final = 300
"""How far a node's clock may be behind the server's."""
TICKET_BYTES: Final = 4096
"""A longer ticket is refused before anything of it is decoded."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The claims of a ticket.

    Attributes:
        epoch: the instance's epoch at the node when the ticket was made.
        user: `id@server`.
        expires_at: in seconds since 1970.
    """

    server: str
    node: str
    instance: str
    epoch: int
    player: str
    user: str
    name: str
    role: str
    expires_at: int
    id: str


def issue(key: ServerKey, ticket: Ticket) -> str:
    """The signed ticket."""
    header = {"alg": ALGORITHM, "typ": TYPE}
    claims = {
        "iss": ticket.server,
        "aud": ticket.node,
        "sub": ticket.user,
        "ins": ticket.instance,
        "epo": ticket.epoch,
        "ply": ticket.player,
        "name": ticket.name,
        "role": ticket.role,
        "exp": ticket.expires_at,
        "jti": ticket.id,
    }
    return jwt.encode(header, claims, key.for_tokens(), algorithms=[ALGORITHM])


def new_id() -> str:
    """The id of a ticket, which nobody can guess."""
    return secrets.token_urlsafe(16)


def read(text: str, public_key: str, *, server: str, node: str, now_s: float) -> Ticket:
    """What the ticket says, if the server with that key (base64url) has made it for the node.

    Raises TicketInvalid, which does not tell what is wrong with it.
    """
    if len(text) > TICKET_BYTES:
        raise TicketInvalid
    try:
        key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": public_key})
        token = jwt.decode(text, key, algorithms=[ALGORITHM])
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise TicketInvalid from error
    if token.header.get("typ") != TYPE:
        raise TicketInvalid
    ticket = _ticket(token.claims)
    if ticket.server != server or ticket.node != node:
        raise TicketInvalid
    if not now_s < ticket.expires_at <= now_s + VALID_S + AHEAD_S:
        raise TicketInvalid
    return ticket


def _ticket(claims: dict[str, Any]) -> Ticket:
    names = ("iss", "aud", "ins", "ply", "sub", "name", "role", "jti")
    texts = [claims.get(name) for name in names]
    epoch, expires_at = claims.get("epo"), claims.get("exp")
    if not all(isinstance(one, str) for one in texts):
        raise TicketInvalid
    if type(epoch) is not int or type(expires_at) is not int:
        raise TicketInvalid
    server, node, instance, player, user, name, role, id_ = map(str, texts)
    return Ticket(server, node, instance, epoch, player, user, name, role, expires_at, id_)
