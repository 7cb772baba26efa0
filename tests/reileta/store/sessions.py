"""Sessions, claimants and resources for the tests of the session API's storage."""

from __future__ import annotations

from typing import Final

from reileta.records import ResourceRecord, SessionRecord, User
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import DOCUMENT, Content
from reileta.store import Store

FOR_EVER: Final = 2**62


async def make_user(store: Store, name: str = "ada", *, autopilot: bool = False) -> User:
    return await store.users.create(
        username=name, displayname=name, password_hash=None, autopilot=autopilot
    )


async def make_session(store: Store, name: str = "ada") -> tuple[SessionRecord, Claimant]:
    """A session of that user, who is made if need be."""
    user = await store.users.by_name(name) or await make_user(store, name)
    session = await store.sessions.open(user.id)
    return session, claimant(session, user)


def claimant(session: SessionRecord, user: User) -> Claimant:
    return Claimant(session.id, user.id, admin=user.admin, autopilot=user.autopilot)


async def make_document(
    store: Store, who: Claimant, data: object = None
) -> tuple[ResourceRecord, ResourceKey]:
    made = await store.resources.create(DOCUMENT, who, Content("Notes", data))  # type: ignore[arg-type]
    return made, ResourceKey(DOCUMENT, made.number)
