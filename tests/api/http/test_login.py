"""Login for both APIs; the tests of their endpoints show the rest."""

from __future__ import annotations

import pytest

from api.credentials import Auth
from api.http.endpoint import ApiDeps
from api.http.login import Login, LoginService, NewToken
from api.rate_limits import GUESSES, HttpRateLimits
from reileta.errors import CredentialInvalid, LoginInvalid, SessionNotFound, TooManyRequests
from reileta.records import SessionRecord, User
from reileta.rules.session.tokens import Lifetimes
from reileta.security.credentials import digest
from reileta.security.passwords import Passwords
from tests.api.clients import PASSWORD
from tests.api.fakes import FakeNode

LIFETIMES = Lifetimes(access_ms=1_000, refresh_ms=2_000)
IP = "192.0.2.1"
TOKENS = 2
"""As many as a user may have here."""


@pytest.fixture
def deps(node: FakeNode) -> ApiDeps:
    node.settings = node.settings.model_copy(update={"tokens_per_user": TOKENS})
    return ApiDeps(node.as_node(), Auth(node.store.tokens, node.clock), HttpRateLimits(node.clock))


@pytest.fixture
def logins(deps: ApiDeps, passwords: Passwords) -> LoginService:
    return LoginService(deps, passwords, LIFETIMES)


@pytest.fixture
async def ada(node: FakeNode, passwords: Passwords) -> User:
    return await node.store.users.create(
        username="ada", displayname="Ada", password_hash=await passwords.hash(PASSWORD), email=None
    )


def login(session_id: str | None = None, password: str = PASSWORD) -> Login:
    return Login(username="ada", password=password, session_id=session_id)


async def session_of(
    user: User, session: SessionRecord, proof: str | None
) -> tuple[str, SessionRecord]:
    return user.id, session


async def test_a_login_without_a_session_opens_one(
    logins: LoginService, node: FakeNode, ada: User
) -> None:
    user_id, opened = await logins.log_in(login(), IP, session_of)
    assert user_id == opened.user_id == ada.id
    assert await node.store.sessions.get(opened.id) == opened


async def test_a_session_that_is_alive_goes_on(
    logins: LoginService, node: FakeNode, ada: User
) -> None:
    session = await node.store.sessions.open(ada.id)
    assert await logins.log_in(login(session.id), IP, session_of) == (ada.id, session)


async def test_a_session_of_another_or_ended_gives_way_to_a_new_one(
    logins: LoginService, node: FakeNode, ada: User
) -> None:
    sessions = node.store.sessions
    others = await sessions.open((await node.store.users.main_admin()).id)
    ended = await sessions.open(ada.id)
    await sessions.end(ended.id)
    for id_ in (others.id, ended.id, "s_nonsense", ""):
        _, opened = await logins.log_in(login(id_), IP, session_of)
        assert opened.user_id == ada.id
        assert opened.id not in (others.id, ended.id)


async def test_a_session_that_is_ended_in_between_gives_way_to_a_new_one(
    logins: LoginService, node: FakeNode, ada: User
) -> None:
    session = await node.store.sessions.open(ada.id)
    asked: list[str] = []

    async def too_late(user: User, session: SessionRecord, proof: str | None) -> NewToken:
        if not asked:
            await node.store.sessions.end(session.id)
        asked.append(session.id)
        return await logins.issue(user, session, proof)

    made = await logins.log_in(login(session.id), IP, too_late)
    assert asked == [session.id, made.token.session_id]
    assert made.token.session_id != session.id


async def test_it_is_tried_no_more_than_twice(
    logins: LoginService, node: FakeNode, ada: User
) -> None:
    asked: list[str] = []

    async def always_too_late(user: User, session: SessionRecord, proof: str | None) -> None:
        asked.append(session.id)
        raise SessionNotFound

    with pytest.raises(SessionNotFound):
        await logins.log_in(login(), IP, always_too_late)
    assert len(set(asked)) == len(asked) == 2


async def test_a_wrong_password_opens_nothing(
    logins: LoginService, node: FakeNode, ada: User
) -> None:
    with pytest.raises(LoginInvalid):
        await logins.log_in(login(password="not the password"), IP, session_of)
    assert (await node.store.sessions.of_user(ada.id, limit=1, offset=0)).total == 0


async def test_guessing_is_limited_also_for_whoever_guesses_right(
    logins: LoginService, ada: User
) -> None:
    for _ in range(GUESSES.burst):
        with pytest.raises(LoginInvalid):
            await logins.log_in(login(password="not the password"), IP, session_of)
    with pytest.raises(TooManyRequests):
        await logins.log_in(login(), IP, session_of)


async def test_who_has_logged_in_or_registered_there_is_known_there(
    logins: LoginService, node: FakeNode, ada: User
) -> None:
    networks = node.store.networks
    await logins.log_in(login(), "2001:db8:1:2::3", session_of)
    assert await networks.known(ada.id, "2001:db8:1:2::")
    await logins.register(ada, "192.0.2.7", session_of)
    assert await networks.known(ada.id, "192.0.2.7")
    with pytest.raises(LoginInvalid):
        await logins.log_in(login(password="not the password"), "192.0.2.8", session_of)
    assert not await networks.known(ada.id, "192.0.2.8")


async def test_over_the_quota_of_sessions_one_ends_at_once(
    logins: LoginService, deps: ApiDeps, node: FakeNode, ada: User
) -> None:
    first = await logins.log_in(login(), IP, session_of)
    made = await logins.issue(ada, first[1], None)
    await deps.auth.authenticate_token(made.access)  # and it is remembered
    for _ in range(node.settings.sessions_per_user):
        node.clock.advance(1)
        await logins.log_in(login(), IP, session_of)
    assert node.ended == [first[1].id]
    with pytest.raises(CredentialInvalid):
        await deps.auth.authenticate_token(made.access)


async def test_a_password_that_is_changed_while_it_is_proven_proves_nothing(
    logins: LoginService, node: FakeNode, passwords: Passwords, ada: User
) -> None:
    async def meanwhile(user: User, session: SessionRecord, proof: str | None) -> NewToken:
        await node.store.users.change_password(ada.id, await passwords.hash("new"), keep=session.id)
        return await logins.issue(user, session, proof)

    with pytest.raises(LoginInvalid):
        await logins.log_in(login(), IP, meanwhile)


async def test_a_token_lives_as_long_as_is_said(
    logins: LoginService, node: FakeNode, ada: User
) -> None:
    session = await node.store.sessions.open(ada.id)
    made = await logins.issue(ada, session, None)
    now = node.clock.now_ms()
    assert (made.token.access_expires, made.token.refresh_expires) == (now + 1_000, now + 2_000)
    found = await node.store.tokens.by_access(digest(made.access))
    assert found is not None
    assert found[0].refresh_hash == digest(made.refresh)
    assert made.access not in repr(made)
    assert made.refresh not in repr(made)


async def test_the_tokens_over_the_limit_are_good_for_nothing_at_once(
    logins: LoginService, deps: ApiDeps, node: FakeNode, ada: User
) -> None:
    session = await node.store.sessions.open(ada.id)
    first = await logins.issue(ada, session, None)
    await deps.auth.authenticate_token(first.access)  # and it is remembered
    for _ in range(TOKENS):
        await logins.issue(ada, session, None)
    assert node.killed == [first.token.id]
    with pytest.raises(CredentialInvalid):
        await deps.auth.authenticate_token(first.access)
