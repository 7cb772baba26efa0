"""Where a credential stands, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from werkzeug.datastructures import Headers

from api.app import ReiletaApp
from api.credentials import DOUBTED_MS, Auth, Credential, credential_of
from reileta.errors import CredentialInvalid, CredentialMalformed
from reileta.records import SessionRecord, Token, User
from reileta.security.credentials import digest
from tests.api.clients import Client
from tests.conftest import ManualClock

TOKEN = "ua_" + "x" * 43
OTHER = "ua_" + "y" * 43


def find(
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    args: dict[str, str] | None = None,
    cookies: dict[str, str] | None = None,
    *,
    method: str = "GET",
    scheme: str = "http",
) -> Credential | None:
    return credential_of(
        Headers(headers or {}), args or {}, cookies or {}, method=method, scheme=scheme
    )


@pytest.mark.parametrize(
    "value",
    [f"Bearer {TOKEN}", TOKEN, f"bearer {TOKEN}", f"BEARER   {TOKEN}", f"  Bearer {TOKEN} "],
)
def test_the_header_comes_with_a_scheme_or_without(value: str) -> None:
    assert find({"Authorization": value}) == Credential(TOKEN, "header")


@pytest.mark.parametrize(
    "value",
    ["", " ", "Bearer", "Bearer ", "bearer", f"Basic {TOKEN}", f"Bearer x {TOKEN}",
     f"Bearer {TOKEN}\x00", f"{TOKEN},{TOKEN}", "Bearer ünïcode-token", "Bearer a=b", "Bearer ="],
)  # fmt: skip
def test_a_header_that_can_be_no_credential(value: str) -> None:
    with pytest.raises(CredentialMalformed):
        find({"Authorization": value})


@pytest.mark.parametrize("token", ["x", "-", "ua_", "bearer", "a.b-c_d~e+f/g==", "x" * 4096])
def test_any_text_of_a_tokens_form_can_be_one(token: str) -> None:
    assert find({"Authorization": f"Bearer {token}"}) == Credential(token, "header")


def test_two_headers_are_one_too_many() -> None:
    with pytest.raises(CredentialMalformed):
        find([("Authorization", TOKEN), ("Authorization", TOKEN)])


def test_the_header_wins_over_the_query_and_that_over_the_cookie() -> None:
    args, cookies = {"authuser": OTHER}, {"_suid": "ua_" + "z" * 43}
    assert find({"Authorization": TOKEN}, args, cookies) == Credential(TOKEN, "header")
    assert find({}, args, cookies) == Credential(OTHER, "query")


def test_only_the_querys_authuser_is_deprecated() -> None:
    for credential, deprecated in (
        (find({}, {"authuser": TOKEN}), True),
        (find({"Authorization": TOKEN}), False),
        (find({}, {"authserver": "sa_" + "x" * 43}), False),
        (find({}, {"integrityuser": "ia_" + "x" * 43}), False),
        (find({}, {}, {"_suid": TOKEN}), False),
    ):
        assert credential is not None
        assert credential.deprecated is deprecated


@pytest.mark.parametrize("name", ["authuser", "authserver", "integrityuser"])
def test_the_querys_tokens_are_of_their_kind(name: str) -> None:
    with pytest.raises(CredentialInvalid):
        find({}, {name: "xx_" + "x" * 43})
    for value in ("", "a b", "a,b"):
        with pytest.raises(CredentialMalformed):
            find({}, {name: value})


@pytest.mark.parametrize(
    ("agent", "prefix", "agrees"),
    [
        ("AVR(User)", "ua_", True), ("AVR(User)", "ia_", True), ("avr(user)", "ua_", True),
        ("AVR(User)", "sa_", False), ("AVR(Server)", "sa_", True), ("AVR(Server)", "ua_", False),
        ("Mozilla/5.0", "ua_", True), ("", "ua_", True),
    ],
)  # fmt: skip
def test_the_user_agent_says_the_same_kind(agent: str, prefix: str, agrees: bool) -> None:
    headers = {"Authorization": prefix + "x" * 43, "User-Agent": agent}
    if agrees:
        assert find(headers) is not None
    else:
        with pytest.raises(CredentialInvalid):
            find(headers)


@pytest.mark.parametrize(
    ("method", "origin", "scheme", "taken"),
    [
        ("GET", None, "http", True),
        ("HEAD", None, "http", True),
        ("GET", "https://evil.example", "http", True),
        ("POST", None, "http", False),
        ("POST", "http://play.example.org:3032", "http", True),
        ("POST", "http://PLAY.example.org:3032", "http", True),
        ("POST", "https://play.example.org:3032", "https", True),
        ("POST", "http://play.example.org:3032", "https", False),
        ("POST", "http://play.example.org", "http", False),
        ("DELETE", "https://evil.example", "http", False),
        ("DELETE", "null", "http", False),
        ("WEBSOCKET", None, "ws", False),
        ("WEBSOCKET", "https://evil.example", "wss", False),
        ("WEBSOCKET", "https://play.example.org:3032", "wss", True),
        ("WEBSOCKET", "http://play.example.org:3032", "ws", True),
    ],
)
def test_a_cookie_speaks_for_reads_and_for_our_own_pages(
    method: str, origin: str | None, scheme: str, taken: bool
) -> None:
    headers = {"Host": "play.example.org:3032"} | ({"Origin": origin} if origin else {})
    found = find(headers, {}, {"_suid": TOKEN}, method=method, scheme=scheme)
    assert found == (Credential(TOKEN, "cookie") if taken else None)


@pytest.mark.parametrize(
    ("origins", "site", "host", "scheme", "taken"),
    [
        # Default ports and capitals are other spellings of the same origin.
        (["http://play.example.org"], None, "play.example.org:80", "http", True),
        (["http://play.example.org:80"], None, "play.example.org", "http", True),
        (["HTTPS://Play.Example.Org"], None, "play.example.org:443", "https", True),
        (["https://play.example.org:443"], None, "PLAY.example.org", "wss", True),
        (["http://play.example.org:443"], None, "play.example.org", "http", False),
        (["http://[::1]:3032"], None, "[::1]:3032", "http", True),
        (["http://[::1]"], None, "[::1]:80", "http", True),
        # Without an Origin, what the browser says of the site, which no page can set.
        ([], "same-origin", "play.example.org", "http", True),
        ([], "Same-Origin", "play.example.org", "http", True),
        ([], "same-site", "play.example.org", "http", False),
        ([], "cross-site", "play.example.org", "http", False),
        ([], "none", "play.example.org", "http", False),
        ([], "", "play.example.org", "http", False),
        ([], None, "play.example.org", "http", False),
        # Neither may say otherwise.
        (["http://play.example.org"], "same-origin", "play.example.org", "http", True),
        (["http://play.example.org"], "cross-site", "play.example.org", "http", False),
        (["http://evil.example"], "same-origin", "play.example.org", "http", False),
        (["null"], "same-origin", "play.example.org", "http", False),
        (["null"], None, "play.example.org", "http", False),
        ([""], None, "play.example.org", "http", False),
        (["http://"], None, "", "http", False),
        (["http://play.example.org/"], None, "play.example.org", "http", False),
        (["http://play.example.org@evil.example"], None, "play.example.org", "http", False),
        (["http://evil.example#play.example.org"], None, "play.example.org", "http", False),
        (["http://play.example.org.evil.example"], None, "play.example.org", "http", False),
        (["http://play.example.org", "http://evil.example"], None, "play.example.org", "http",
         False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_the_same_origin_in_any_spelling(
    method: str, origins: list[str], site: str | None, host: str, scheme: str, taken: bool
) -> None:
    headers = [("Host", host), *(("Origin", one) for one in origins)]
    if site is not None:
        headers.append(("Sec-Fetch-Site", site))
    found = find(headers, {}, {"_suid": TOKEN}, method=method, scheme=scheme)
    assert (found is not None) == taken


def test_an_upgrade_goes_by_its_origin_alone() -> None:
    own = {"Host": "play.example.org", "Origin": "https://play.example.org"}
    for more in ({}, {"Sec-Fetch-Site": "cross-site"}):
        found = find({**own, **more}, {}, {"_suid": TOKEN}, method="WEBSOCKET", scheme="wss")
        assert found == Credential(TOKEN, "cookie")
    headers = {"Host": "play.example.org", "Sec-Fetch-Site": "same-origin"}
    assert find(headers, {}, {"_suid": TOKEN}, method="WEBSOCKET", scheme="wss") is None


def test_a_cookie_that_can_be_no_token_is_none() -> None:
    for value in ("", "a b", "\0" * 20):
        assert find({}, {}, {"_suid": value}) is None


def test_a_credential_does_not_print_itself() -> None:
    assert TOKEN not in repr(Credential(TOKEN, "header"))


NOW = 1_790_000_000_000
USER = User(
    id="u_1", number=1, username="ada", displayname="Ada", description=None, email=None,
    status="online", tags=frozenset(), autopilot=False, home=None, created_at=0, updated_at=0,
)  # fmt: skip


@dataclass
class FakeTokens:
    """The tokens of one user; `asked` counts look-ups."""

    rows: dict[bytes, tuple[Token, SessionRecord, User]]
    asked: int = 0
    meanwhile: object = None

    async def use(self, access_hash: bytes, /) -> tuple[Token, SessionRecord, User] | None:
        self.asked += 1
        found = self.rows.get(access_hash)
        if callable(self.meanwhile):
            self.meanwhile()
        return found


def row(
    token: str = TOKEN,
    *,
    access_expires: int = NOW + 60_000,
    killed_at: int | None = None,
    ended_at: int | None = None,
) -> tuple[Token, SessionRecord, User]:
    kept = Token(
        access_hash=digest(token), refresh_hash=None, session_id="s_1", user_id="u_1",
        created_at=0, access_expires=access_expires, refresh_expires=NOW, killed_at=killed_at,
    )  # fmt: skip
    return kept, SessionRecord("s_1", "u_1", 0, ended_at), USER


def store(*rows: tuple[Token, SessionRecord, User]) -> FakeTokens:
    return FakeTokens({found[0].access_hash: found for found in rows})


async def test_a_token_is_looked_up_once_in_a_while(clock: ManualClock) -> None:
    tokens = store(row())
    auth = Auth(tokens, clock)
    principal = await auth.authenticate_token(TOKEN)
    assert (principal.user, principal.session_id, principal.token_hash) == (
        USER,
        "s_1",
        digest(TOKEN),
    )
    clock.advance(4_999)
    assert await auth.authenticate_token(TOKEN) is principal
    assert tokens.asked == 1
    clock.advance(1)
    await auth.authenticate_token(TOKEN)
    assert tokens.asked == 2


@pytest.mark.parametrize(
    "dead",
    [None, row(killed_at=NOW - 1), row(access_expires=NOW), row(ended_at=NOW - 1)],
)
async def test_a_dead_token_is_not_valid(
    clock: ManualClock, dead: tuple[Token, SessionRecord, User] | None
) -> None:
    auth = Auth(store(*([] if dead is None else [dead])), clock)
    with pytest.raises(CredentialInvalid):
        await auth.authenticate_token(TOKEN)


@pytest.mark.parametrize("prefix", ["sa_", "ia_", "ur_", "xx_", ""])
async def test_other_kinds_are_not_asked_about(clock: ManualClock, prefix: str) -> None:
    tokens = store(row(prefix + "x" * 43))
    with pytest.raises(CredentialInvalid):
        await Auth(tokens, clock).authenticate_token(prefix + "x" * 43)
    assert tokens.asked == 0


async def test_a_remembered_token_expires_on_time(clock: ManualClock) -> None:
    auth = Auth(store(row(access_expires=NOW + 100)), clock)
    await auth.authenticate_token(TOKEN)
    clock.advance(100)
    with pytest.raises(CredentialInvalid):
        await auth.authenticate_token(TOKEN)


@pytest.mark.parametrize("what", ["token", "session", "user"])
async def test_what_is_forgotten_is_looked_up_again(clock: ManualClock, what: str) -> None:
    tokens = store(row(), row(OTHER))
    auth = Auth(tokens, clock)
    await auth.authenticate_token(TOKEN)
    await auth.authenticate_token(OTHER)

    def forget() -> None:
        match what:
            case "token":
                auth.forget_token(digest(TOKEN))
            case "session":
                auth.forget_session("s_1")
            case _:
                auth.forget_user("u_1")

    forget()
    tokens.rows.clear()
    with pytest.raises(CredentialInvalid):
        await auth.authenticate_token(TOKEN)
    if what == "token":
        await auth.authenticate_token(OTHER)
    else:
        with pytest.raises(CredentialInvalid):
            await auth.authenticate_token(OTHER)


@pytest.mark.parametrize("what", ["token", "keys", "session"])
async def test_what_was_revoked_here_is_doubted_for_a_while(clock: ManualClock, what: str) -> None:
    """A gateway authenticates it itself: the registry may not have heard of it."""
    auth = Auth(store(row(), row(OTHER)), clock)
    await auth.authenticate_token(TOKEN)
    assert not auth.any_doubts
    match what:
        case "token":
            auth.forget_token(digest(TOKEN))
        case "keys":
            auth.forget_keys([digest(TOKEN)])
        case _:
            auth.forget_session("s_1")
    assert [auth.doubts(one) for one in (TOKEN, OTHER)] == [True, False]
    clock.advance(DOUBTED_MS)
    assert not auth.doubts(TOKEN)
    auth.forget_keys([digest(OTHER)])
    auth.forget_user("u_1")  # its keys are as good as before
    assert [auth.doubts(one) for one in (TOKEN, OTHER)] == [False, True]


async def test_a_token_killed_while_it_is_looked_up_is_not_remembered(clock: ManualClock) -> None:
    tokens = store(row())
    auth = Auth(tokens, clock)
    tokens.meanwhile = lambda: auth.forget_token(digest(TOKEN))
    await auth.authenticate_token(TOKEN)
    tokens.rows.clear()
    with pytest.raises(CredentialInvalid):
        await auth.authenticate_token(TOKEN)


async def test_memory_is_bounded(clock: ManualClock) -> None:
    names = ["ua_" + f"{n:043}" for n in range(4)]
    tokens = store(*(row(name) for name in names))
    auth = Auth(tokens, clock, size=3)
    for name in names:
        await auth.authenticate_token(name)
    for name in names[1:]:
        await auth.authenticate_token(name)
    assert tokens.asked == 4
    await auth.authenticate_token(names[0])
    assert tokens.asked == 5


async def test_keys_that_are_no_longer_used_need_no_memory(clock: ManualClock) -> None:
    names = ["ua_" + f"{n:043}" for n in range(100)]
    rows = [row(name, access_expires=NOW + 600_000) for name in names]
    auth = Auth(store(*rows), clock, ttl_ms=5_000)
    for name in names:
        clock.advance(1_000)
        await auth.authenticate_token(name)
    assert len(auth) == 5


async def test_over_http_every_form_is_taken(app: ReiletaApp, ada: Client) -> None:
    anyone, token = Client(app), ada.token
    path = "/api/users/@me"
    assert token is not None
    for headers in (
        {"Authorization": f"Bearer {token}"},
        {"Authorization": token, "User-Agent": "AVR(User)"},
        {"Cookie": f"_suid={token}"},
    ):
        answer = await anyone.get(path, headers=headers)
        assert answer.data["username"] == "ada"
        assert "Deprecation" not in answer.headers
    answer = await anyone.get(f"{path}?authuser={token}")
    assert answer.data["username"] == "ada"
    assert answer.headers["Deprecation"].startswith("@")
    assert token.encode() not in answer.raw


@pytest.mark.parametrize(
    ("headers", "query", "status", "code"),
    [
        ({"Authorization": "Basic YTpi"}, "", 400, 100),
        ({"Authorization": ""}, "", 400, 100),
        ({"Authorization": "Bearer"}, "", 400, 100),
        ({"Authorization": f"Bearer {TOKEN}"}, "", 401, 101),
        ({"Authorization": "Bearer sa_" + "x" * 43}, "", 401, 101),
        ({}, "?authuser=", 400, 100),
        ({}, f"?authuser={TOKEN}", 401, 101),
        ({}, "?authserver=sa_" + "x" * 43, 401, 101),
        ({}, "?integrityuser=ia_" + "x" * 43, 401, 101),
        ({"Cookie": f"_suid={TOKEN}"}, "", 401, 3),
        ({}, "", 401, 3),
    ],
)
async def test_over_http_every_fault_has_its_code(
    anyone: Client, headers: dict[str, str], query: str, status: int, code: int
) -> None:
    answer = await anyone.get(f"/api/users/@me{query}", headers=headers)
    assert (answer.status, answer.code) == (status, code)


async def test_a_bad_credential_is_refused_where_none_is_needed(anyone: Client) -> None:
    answer = await anyone.get("/api/worlds", headers={"Authorization": TOKEN})
    assert (answer.status, answer.code) == (401, 101)
    answer = await anyone.get("/api/worlds", headers={"Cookie": f"_suid={TOKEN}"})
    assert answer.status == 200


async def test_a_cookie_of_another_site_writes_nothing(app: ReiletaApp, ada: Client) -> None:
    anyone = Client(app)
    cookie = {"Cookie": f"_suid={ada.token}", "Host": "play.example.org"}
    answer = await anyone.put("/api/worlds", {"title": "t"}, headers=cookie)
    assert (answer.status, answer.code) == (401, 3)
    evil = cookie | {"Origin": "https://evil.example"}
    answer = await anyone.put("/api/worlds", {"title": "t"}, headers=evil)
    assert (answer.status, answer.code) == (401, 3)
    own = cookie | {"Origin": "http://play.example.org"}
    assert (await anyone.put("/api/worlds", {"title": "t"}, headers=own)).status == 200
