"""Passwords that prove who asks: a stranger's guesses are bounded, and lock nobody out at home."""

from __future__ import annotations

import pytest

from api.app import ReiletaApp, create_app
from api.credentials import Auth
from api.http.endpoint import ApiDeps, RequestContext
from api.http.password_check import PasswordCheck
from api.rate_limits import GUESSES, GUESSES_FROM_AFAR, HttpRateLimits, network
from reileta.errors import LoginInvalid, Overloaded, TooManyRequests
from reileta.records import User
from reileta.rules.identity import Principal
from reileta.security.passwords import SERVER, Passwords, Requester
from tests.api.clients import PASSWORD, Client
from tests.api.fakes import FakeNode

HOME, OFFICE = "203.0.113.7", "2001:db8:1:2::3"
WRONG = "not the password"


@pytest.fixture
def deps(node: FakeNode) -> ApiDeps:
    return ApiDeps(node.as_node(), Auth(node.store.tokens, node.clock), HttpRateLimits(node.clock))


@pytest.fixture
def password_check(deps: ApiDeps, passwords: Passwords) -> PasswordCheck:
    return PasswordCheck(deps, passwords)


@pytest.fixture
async def ada(node: FakeNode, passwords: Passwords) -> User:
    return await node.store.users.create(
        username="ada", displayname="Ada", password_hash=await passwords.hash(PASSWORD), email=None
    )


def asker(user: User, ip: str) -> RequestContext:
    """A request of that user, from that address."""
    return RequestContext(None, Principal(user, "s_x", b"t"), {}, ip)  # type: ignore[arg-type]


async def guessed(password_check: PasswordCheck, name: str, *ips: str) -> int:
    """Guesses once from each address; how many were looked at."""
    looked_at = 0
    for ip in ips:
        try:
            await password_check.by_name(name, WRONG, ip)
        except LoginInvalid:
            looked_at += 1
        except TooManyRequests:
            pass
    return looked_at


def everywhere(number: int) -> list[str]:
    return [f"2001:db8:f:{one:x}::1" for one in range(number)]


async def test_a_right_password_gives_the_user_and_the_hash_it_was_checked_against(
    password_check: PasswordCheck, node: FakeNode, ada: User
) -> None:
    assert await password_check.by_name(
        "ADA", PASSWORD, HOME
    ) == await node.store.users.credentials("ada")
    await password_check.of_caller(asker(ada, HOME), PASSWORD)


async def test_strangers_can_not_lock_a_user_out_where_it_is_known(
    password_check: PasswordCheck, ada: User
) -> None:
    await password_check.logged_in(ada, HOME)
    await password_check.logged_in(ada, OFFICE)
    await guessed(password_check, "ada", *everywhere(GUESSES_FROM_AFAR.burst + 50))
    with pytest.raises(TooManyRequests):  # the name is used up where ada is not known
        await password_check.by_name("ada", PASSWORD, "192.0.2.1")
    for ip in (HOME, OFFICE, "2001:db8:1:2:ffff::"):
        await password_check.by_name("ada", PASSWORD, ip)
        await password_check.of_caller(asker(ada, ip), PASSWORD)


async def test_one_stranger_locks_nobody_out_anywhere_else(
    password_check: PasswordCheck, ada: User
) -> None:
    assert await guessed(password_check, "ada", *["192.0.2.1"] * 50) == GUESSES.burst
    await password_check.by_name("ada", PASSWORD, "192.0.2.2")


@pytest.mark.parametrize("name", ["ada", "nobody"])
async def test_guesses_from_everywhere_are_bounded_whether_or_not_there_is_such_a_user(
    password_check: PasswordCheck, node: FakeNode, ada: User, name: str
) -> None:
    many = everywhere(2 * GUESSES_FROM_AFAR.burst)
    assert await guessed(password_check, name, *many) == GUESSES_FROM_AFAR.burst
    node.clock.advance(10_000)
    assert await guessed(password_check, name, *many) == 10 * GUESSES_FROM_AFAR.per_s


async def test_guesses_where_the_user_is_known_are_bounded_too(
    password_check: PasswordCheck, ada: User
) -> None:
    await password_check.logged_in(ada, HOME)
    assert await guessed(password_check, "ada", *[HOME] * 50) == GUESSES.burst
    with pytest.raises(TooManyRequests):
        await password_check.of_caller(asker(ada, HOME), PASSWORD)


async def test_right_passwords_are_no_guesses(password_check: PasswordCheck, ada: User) -> None:
    for _ in range(GUESSES_FROM_AFAR.burst + 1):
        await password_check.by_name("ada", PASSWORD, HOME)


async def test_a_restart_locks_nobody_out(
    password_check: PasswordCheck, node: FakeNode, passwords: Passwords, ada: User
) -> None:
    await password_check.logged_in(ada, HOME)
    auth, limits = Auth(node.store.tokens, node.clock), HttpRateLimits(node.clock)
    again = PasswordCheck(ApiDeps(node.as_node(), auth, limits), passwords)
    await guessed(again, "ada", *everywhere(GUESSES_FROM_AFAR.burst + 1))
    await again.by_name("ada", PASSWORD, HOME)


async def test_what_was_not_looked_at_was_no_guess(deps: ApiDeps, ada: User) -> None:
    class Busy(Passwords):
        async def verify(self, hash_: str | None, password: str, by: Requester = SERVER) -> bool:
            raise Overloaded

    password_check = PasswordCheck(deps, Busy())
    for _ in range(GUESSES.burst + 1):
        with pytest.raises(Overloaded):
            await password_check.by_name("ada", PASSWORD, HOME)


async def test_hashes_are_queued_by_where_they_come_from(
    deps: ApiDeps, node: FakeNode, ada: User
) -> None:
    asked: list[Requester] = []

    class Recording(Passwords):
        async def hash(self, password: str, by: Requester = SERVER) -> str:
            asked.append(by)
            return "a hash"

        async def verify(self, hash_: str | None, password: str, by: Requester = SERVER) -> bool:
            asked.append(by)
            return True

    password_check = PasswordCheck(deps, Recording())
    await node.store.networks.add(ada.id, network(HOME))
    office = network(OFFICE)
    for ip, where in ((HOME, Requester(HOME, known=True)), (OFFICE, Requester(office))):
        await password_check.by_name("ada", PASSWORD, ip)
        await password_check.of_caller(asker(ada, ip), PASSWORD)
        await password_check.hashed(asker(ada, ip), PASSWORD)
        assert asked == [where] * 3
        asked.clear()
    with pytest.raises(LoginInvalid):
        await password_check.by_name("nobody", PASSWORD, HOME)
    await password_check.hashed(RequestContext(None, None, {}, HOME), PASSWORD)  # type: ignore[arg-type]
    assert asked == [Requester(HOME)] * 2


async def test_a_user_that_has_another_name_by_now_is_not_taken_for_its_successor(
    password_check: PasswordCheck, node: FakeNode, passwords: Passwords, ada: User
) -> None:
    await node.store.users.update(ada.id, username="lovelace")
    await node.store.users.create(
        username="ada", displayname="Eve", password_hash=await passwords.hash("eve's"), email=None
    )
    with pytest.raises(LoginInvalid):
        await password_check.of_caller(asker(ada, HOME), "eve's")


@pytest.mark.parametrize("path", ["/api/auth/login", "/auth/login"])
async def test_both_apis_count_together(
    node: FakeNode, passwords: Passwords, ada: User, path: str
) -> None:
    node.settings = node.settings.model_copy(update={"rate_limits": "on"})
    app: ReiletaApp = create_app(node.as_node(), passwords=passwords)
    other = {"/api/auth/login": "/auth/login", "/auth/login": "/api/auth/login"}[path]

    async def log_in(path: str, password: str, ip: str) -> int:
        body = {"username": "ada", "password": password}
        return (await Client(app).post(path, body, client=(ip, 40000))).status

    for _ in range(GUESSES.burst):
        assert await log_in(path, WRONG, "192.0.2.1") == 401
    assert await log_in(other, PASSWORD, "192.0.2.1") == 429
    assert await log_in(other, PASSWORD, HOME) == 200
