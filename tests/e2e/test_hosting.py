"""Who may come in, who waits, and who is put out: over HTTP and the socket of a whole server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json, Player, connected
from tests.e2e.processes import eventually
from tests.e2e.servers import Account, ServerHarness, running
from tests.e2e.split_roles import SPLIT

OK = 0
HIDDEN, REFUSED, BANNED, FULL = 36, 49, 123, 48

# What each gets who asks: over the socket with `instance-join`, over HTTP as a candidate. `pending`
# waits for an invitation.
Answers = tuple[object, object]
IN: Answers = (OK, "admitted")
OUT: Answers = (REFUSED, REFUSED)
WAITS: Answers = (REFUSED, "pending")
UNSEEN: Answers = (HIDDEN, HIDDEN)
BARRED: Answers = (BANNED, BANNED)

LEVELS = (
    "avr:public",
    "avr:friends_plus",
    "avr:friends_only",
    "avr:invite_plus",
    "avr:invite_only",
    "avr:private",
)
WHO_MAY_COME_IN = {
    "owner":                     (IN,     IN,     IN,     IN,     IN,     IN),
    "friend of the owner":       (IN,     IN,     IN,     WAITS,  WAITS,  UNSEEN),
    "friend of someone inside":  (IN,     IN,     OUT,    WAITS,  WAITS,  UNSEEN),
    "friend of the master":      (IN,     IN,     IN,     WAITS,  WAITS,  UNSEEN),
    "invited by the owner":      (IN,     OUT,    OUT,    IN,     IN,     UNSEEN),
    "invited by someone inside": (IN,     OUT,    OUT,    IN,     WAITS,  UNSEEN),
    "stranger":                  (IN,     OUT,    OUT,    WAITS,  WAITS,  UNSEEN),
    "banned friend":             (BARRED, BARRED, BARRED, BARRED, BARRED, UNSEEN),
    "admin":                     (IN,     IN,     IN,     IN,     IN,     IN),
}  # fmt: skip
"""By who asks, and by level."""


class HttpClient:
    """HTTP, as somebody."""

    def __init__(self, harness: ServerHarness, client: httpx.AsyncClient) -> None:
        self._house = harness
        self._client = client

    async def ask(
        self, who: Account | None, method: str, path: str, body: object = None
    ) -> dict[str, Any]:
        headers = {} if who is None else {"Authorization": f"Bearer {who.token}"}
        url = f"http://{self._house.host}:{self._house.port}/api{path}"
        answer = await self._client.request(method, url, headers=headers, json=body)
        envelope: dict[str, Any] = answer.json()
        return envelope

    async def data(self, who: Account | None, method: str, path: str, body: object = None) -> Any:
        envelope = await self.ask(who, method, path, body)
        assert "error" not in envelope, envelope
        return envelope["data"]

    async def code(self, who: Account | None, method: str, path: str, body: object = None) -> int:
        envelope = await self.ask(who, method, path, body)
        code: int = envelope.get("error", {"code": OK})["code"]
        return code


@asynccontextmanager
async def site(
    database_url: str, **settings: Any
) -> AsyncIterator[tuple[ServerHarness, HttpClient]]:
    async with (
        running(database_url, rate_limits="off", **settings) as harness,
        httpx.AsyncClient(timeout=PATIENCE_S) as client,
    ):
        yield harness, HttpClient(harness, client)


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[ServerHarness]:
    async with running(database_url, rate_limits="off") as harness:
        yield harness


@pytest.fixture
async def web(harness: ServerHarness) -> AsyncIterator[HttpClient]:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        yield HttpClient(harness, client)


@pytest.fixture
async def owner(harness: ServerHarness) -> Account:
    return await harness.account()


@pytest.fixture
async def one(harness: ServerHarness) -> Account:
    return await harness.account()


@pytest.fixture
async def two(harness: ServerHarness) -> Account:
    return await harness.account()


@pytest.fixture
async def admin(harness: ServerHarness) -> Account:
    return await harness.account(admin=True)


async def opened(harness: ServerHarness, owner: Account, *, capacity: int = 20) -> tuple[str, str]:
    """A public instance of the owner's: its id and its path."""
    room = (await harness.instance(owner, capacity=capacity)).id
    return room, f"/instances/{room}"


@asynccontextmanager
async def sockets(harness: ServerHarness, *accounts: Account) -> AsyncIterator[list[Player]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(harness, one)) for one in accounts]


async def code_of(player: Player, instance: str) -> int:
    answer = await player.ask("instance-join", {"instance": instance})
    code: int = answer.get("error", {"code": OK})["code"]
    return code


async def befriend(web: HttpClient, one: Account, other: Account) -> None:
    await web.data(one, "PUT", f"/users/@me/follows/{other.id}")
    made = await web.data(other, "PUT", f"/users/@me/follows/{one.username}")
    assert made["isFriend"] is True


@pytest.mark.parametrize("access", LEVELS)
async def test_the_table_of_who_may_come_in(
    harness: ServerHarness, web: HttpClient, access: str
) -> None:
    rows = {row: levels[LEVELS.index(access)] for row, levels in WHO_MAY_COME_IN.items()}
    who = {row: await harness.account(admin=row == "admin") for row in rows}
    owner = who["owner"]
    master, member = await harness.account(), await harness.account()
    for one, other in (
        (who["friend of the owner"], owner),
        (who["banned friend"], owner),
        (who["friend of someone inside"], member),
        (who["friend of the master"], master),
    ):
        await befriend(web, one, other)
    room, path = await opened(harness, owner)
    async with sockets(harness, master, member) as players:
        for player in players:  # while anyone may
            await player.join(room)
        await web.data(owner, "POST", path, {"tags": [access]})
        banned = {"user": who["banned friend"].id, "type": "ban"}
        await web.data(owner, "POST", f"{path}/moderate", banned)
        leads = OK if access.startswith("avr:invite") else REFUSED
        member_leads = OK if access == "avr:invite_plus" else REFUSED
        for by, row, expected in (
            (owner, "invited by the owner", leads),
            (member, "invited by someone inside", member_leads),
        ):
            body = {"user": who[row].id}
            assert await web.code(by, "POST", f"{path}/candidate", body) == expected, row
        got: dict[str, tuple[object, object]] = {}
        for row, account in who.items():
            async with connected(harness, account) as player:
                joined = await code_of(player, room)
                if joined == OK:
                    await player.ask("instance-leave", {"instance": room})
                answer = await web.ask(account, "POST", f"{path}/candidate")
                said = answer["error"]["code"] if "error" in answer else answer["data"]["state"]
                got[row] = (joined, said)
                await web.ask(account, "DELETE", f"{path}/candidate")
        assert got == rows


async def test_a_full_instance_and_its_queue(
    harness: ServerHarness, web: HttpClient, owner: Account, one: Account, two: Account
) -> None:
    room, path = await opened(harness, owner, capacity=1)
    async with sockets(harness, owner, one, two) as (inside, first, second):
        await inside.join(room)
        assert await code_of(first, room) == FULL
        assert (await web.data(one, "POST", f"{path}/candidate", {}))["position"] == 1
        entry = await web.data(two, "POST", f"{path}/candidate")
        assert (entry["state"], entry["position"]) == ("waiting", 2)
        assert await web.code(two, "POST", f"{path}/candidate") == 118
        assert (await web.data(None, "GET", path))["queued"] == 2
        assert await web.data(None, "GET", f"{path}/queue") == {"queued": 2}
        assert await web.data(two, "GET", f"{path}/queue") == {"queued": 2, "entry": entry}
        seen = await web.data(owner, "GET", f"{path}/queue?limit=1&offset=1")
        assert seen == {"queued": 2, "items": [entry], "total": 2, "limit": 1, "offset": 1}
        players = await web.data(None, "GET", f"{path}/players")
        assert [(p["player"], p["role"]) for p in players["items"]] == [(inside.id, "owner")]
        await inside.ask("instance-leave", {"instance": room})
        told = await first.until(
            lambda m: (
                m["command"] == "instance-candidate" and m["data"]["entry"]["state"] == "admitted"
            )
        )
        assert told["data"]["reason"] == "admitted"
        moved = await second.until(
            lambda m: m["command"] == "instance-queue" and m["data"]["entry"]["position"] == 1
        )
        assert moved["data"]["queued"] == 1
        assert await code_of(second, room) == FULL
        await first.join(room)
        assert await web.code(two, "DELETE", f"{path}/candidate") == OK
        assert await web.code(two, "DELETE", f"{path}/candidate") == 117


async def test_moderation_over_both_apis(
    harness: ServerHarness,
    web: HttpClient,
    owner: Account,
    one: Account,
    two: Account,
    admin: Account,
) -> None:
    room, path = await opened(harness, owner)
    async with sockets(harness, owner, one, two) as (host, first, second):
        for player in (host, first, second):
            await player.join(room)
        order = {"player": first.id, "type": "mute", "reason": "noise"}
        answer = await host.ask("instance-moderate", order, subgroup=room)
        assert (answer["subgroup"], answer["data"]) == (room, {})
        told = (await first.event("instance-moderated"))["data"]
        assert (told["type"], told["reason"]) == ("mute", "noise")
        answer = await first.ask("instance-data", 1, subgroup=room)
        assert answer["error"]["code"] == REFUSED
        refused: tuple[tuple[dict[str, object], int], ...] = (
            ({"type": "mute"}, 119),
            ({"user": one.id, "player": first.id, "type": "mute"}, 119),
            ({"user": one.id, "type": "ban", "until": 2**63}, 119),
            ({"user": one.id, "type": "ban", "until": 2**53}, 119),
            ({"user": "x" * 257, "type": "ban"}, 119),
            ({"user": one.id, "type": "hug"}, 40),
            ({"user": one.id, "type": "kick", "until": 1}, 40),
            ({"user": one.id, "type": "warn", "reason": "\0"}, 40),
            ({"user": "nobody", "type": "kick"}, 17),
            ({"player": "p_1", "type": "kick"}, 50),
        )
        for wrong, code in refused:
            answer = await host.ask("instance-moderate", wrong, subgroup=room)
            assert answer["error"]["code"] == code, wrong
            http = 40 if code == 119 else code
            assert await web.code(owner, "POST", f"{path}/moderate", wrong) == http
        assert (await host.ask("instance-moderate", {}, subgroup=room))["error"]["code"] == 119
        assert (await host.ask("instance-moderate", {"type": "kick", "user": "x"}))["error"][
            "code"
        ] == 119
        answer = await second.ask(
            "instance-moderate", {"user": one.id, "type": "kick"}, subgroup=room
        )
        assert answer["error"]["code"] == REFUSED
        await web.data(owner, "PUT", f"{path}/moderators/{two.username}")
        kick = {"user": one.username, "type": "kick", "reason": "enough"}
        await web.data(two, "POST", f"{path}/moderate", kick)
        left = await first.event("instance-left")
        assert (left["data"]["reason"], left["data"]["note"]) == ("kicked", "enough")
        assert await code_of(first, room) == OK  # a kick is no ban
        ban = {"user": one.id, "type": "ban"}
        await web.data(two, "POST", f"{path}/moderate", ban)
        assert (await first.event("instance-left"))["data"]["reason"] == "banned"
        assert await code_of(first, room) == BANNED
        bans = await web.data(two, "GET", f"{path}/bans")
        assert [(b["user"], b["by"]) for b in bans["items"]] == [
            (f"{one.id}@{harness.address}", f"{two.id}@{harness.address}")
        ]
        assert await web.code(one, "GET", f"{path}/bans") == REFUSED
        await web.data(owner, "POST", f"{path}/master", {"user": two.id})

        async def master() -> str:
            return str((await web.data(None, "GET", path))["master"])

        async def changed() -> bool:  # another process hears of it a moment later
            return await master() == f"{two.id}@{harness.address}"

        await eventually(changed)
        await web.data(owner, "DELETE", f"{path}/moderators/{two.id}")
        log = await web.data(owner, "GET", f"{path}/moderations")
        assert [one["type"] for one in log["items"]] == [
            "unmoderator",
            "master",
            "ban",
            "kick",
            "moderator",
            "mute",
        ]
        assert await web.code(two, "GET", f"{path}/moderations") == 4
        await web.data(owner, "DELETE", path)
    for reader in (owner, admin):
        assert (await web.data(reader, "GET", f"{path}/moderations"))["total"] == 6
    assert await web.code(two, "GET", f"{path}/moderations") == HIDDEN


async def test_bans_and_moderators_outlive_a_restart(database_url: str) -> None:
    settings: dict[str, Any] = {"address": "play.example.org", "empty_instance_s": 600}
    async with site(database_url, **settings) as (harness, web):
        owner, one, two = [await harness.account() for _ in range(3)]
        room, path = await opened(harness, owner)
        await web.data(owner, "PUT", f"{path}/moderators/{two.id}")
        body = {"user": one.id, "type": "ban", "reason": "spam"}
        await web.data(two, "POST", f"{path}/moderate", body)
    async with site(database_url, **settings) as (harness, web):
        async with connected(harness, one) as player:
            assert await code_of(player, room) == BANNED
        (ban,) = (await web.data(two, "GET", f"{path}/bans"))["items"]
        assert ban["reason"] == "spam"
        await web.data(two, "POST", f"{path}/moderate", {"user": one.id, "type": "unban"})
    async with site(database_url, **settings) as (harness, web), connected(harness, one) as player:
        assert await code_of(player, room) == OK


async def test_mutes_outlive_a_restart(database_url: str) -> None:
    settings: dict[str, Any] = {"address": "play.example.org", "empty_instance_s": 600}
    async with site(database_url, **settings) as (harness, web):
        owner, one, two = [await harness.account() for _ in range(3)]
        room, path = await opened(harness, owner)
        async with connected(harness, one) as player:
            assert await code_of(player, room) == OK
            mute = {"user": one.id, "type": "mute", "reason": "loud"}
            await web.data(owner, "POST", f"{path}/moderate", mute)
    async with site(database_url, **settings) as (harness, web):
        (listed,) = (await web.data(owner, "GET", f"{path}/mutes"))["items"]
        assert (listed["user"], listed["reason"]) == (f"{one.id}@{harness.address}", "loud")
        # Not `one`: in a cluster it keeps its seat for a moment, and so is the master.
        assert await web.code(two, "GET", f"{path}/mutes") == REFUSED
        async with connected(harness, one) as player:
            assert await code_of(player, room) == OK
            answer = await player.ask("instance-data", {"say": "la"}, subgroup=room)
            assert answer["error"]["code"] == REFUSED
        await web.data(owner, "POST", f"{path}/moderate", {"user": one.id, "type": "unmute"})
    async with site(database_url, **settings) as (harness, web):
        assert (await web.data(owner, "GET", f"{path}/mutes"))["items"] == []


async def test_following(
    harness: ServerHarness, web: HttpClient, one: Account, two: Account, admin: Account
) -> None:
    made = await web.data(one, "PUT", f"/users/@me/follows/{two.username}")
    assert (made["user"], made["isFriend"]) == (f"{two.id}@{harness.address}", False)
    assert await web.code(one, "PUT", f"/users/@me/follows/{two.id}") == 37
    assert await web.code(one, "PUT", "/users/@me/follows/@me") == 14
    assert await web.code(one, "PUT", "/users/@me/follows/nobody") == 17
    assert await web.code(one, "PUT", f"/users/{two.id}/follows/{one.id}") == 12
    assert await web.code(None, "PUT", f"/users/{one.id}/follows/{two.id}") == 3
    other = "u_00000000-0000-4000-8000-000000000000@elsewhere.example"
    assert (await web.data(one, "PUT", f"/users/@me/follows/{other}"))["user"] == other
    await web.data(admin, "PUT", f"/users/{two.id}/follows/{one.id}")
    follows = await web.data(one, "GET", "/users/@me/follows")
    assert [(f["user"], f["isFriend"]) for f in follows["items"]] == [
        (f"{two.id}@{harness.address}", True),
        (other, False),
    ]
    followers = await web.data(one, "GET", "/users/@me/followers?limit=1")
    assert (followers["total"], followers["items"][0]["isFriend"]) == (1, True)
    assert await web.code(two, "GET", f"/users/{one.id}/followers") == 18
    assert await web.code(one, "DELETE", f"/users/@me/follows/{two.id}") == OK
    assert (await web.data(one, "GET", "/users/@me/follows"))["total"] == 1


async def test_friends_see_each_other_as_such_at_once_and_no_longer_than_that(
    harness: ServerHarness, web: HttpClient, one: Account, two: Account
) -> None:
    async with sockets(harness, one, two) as (first, second):
        for player, other in ((first, two), (second, one)):
            await player.ask("subscribe", {"event": "update-user", "target": other.id})

        async def seen(player: Player, other: Account) -> bool:
            """Whether the player is told of the other as of a friend."""
            told = await player.until(lambda message: message.get("subgroup") == other.id)
            assert ("status" in told["data"]) is ("isFriend" in told["data"])
            return "isFriend" in told["data"]

        await web.data(one, "PUT", f"/users/@me/follows/{two.id}")
        assert (await seen(first, two), await seen(second, one)) == (False, False)
        await web.data(two, "PUT", f"/users/@me/follows/{one.id}")
        assert (await seen(first, two), await seen(second, one)) == (True, True)
        await web.data(one, "DELETE", f"/users/@me/follows/{two.id}")
        assert (await seen(first, two), await seen(second, one)) == (False, False)


async def test_a_waiting_entry_outlives_its_socket(database_url: str) -> None:
    async with site(database_url, queue_grace_s=2 * PATIENCE_S) as (harness, web):
        owner, one = await harness.account(), await harness.account()
        room, path = await opened(harness, owner, capacity=1)
        async with connected(harness, owner) as inside:
            await inside.join(room)
            async with connected(harness, one) as player:
                await web.data(one, "POST", f"{path}/candidate")
                await player.event("instance-queue")
            async with connected(harness, one) as player:
                assert (await player.event("instance-queue"))["data"]["entry"]["position"] == 1


async def test_a_waiting_entry_ends_with_its_grace(database_url: str) -> None:
    async with site(database_url, queue_grace_s=0.1) as (harness, web):
        owner, one = await harness.account(), await harness.account()
        room, path = await opened(harness, owner, capacity=1)
        async with connected(harness, owner) as inside:
            await inside.join(room)
            async with connected(harness, one) as player:
                await web.data(one, "POST", f"{path}/candidate")
                await player.event("instance-queue")
            with trio.fail_after(PATIENCE_S):
                while (await web.data(None, "GET", f"{path}/queue"))["queued"]:
                    await trio.sleep(0.05)


def closed(message: Json) -> bool:
    """Whether it is the end of an instance."""
    return message.get("command") == "instance-left" and message["data"]["reason"] == "closed"


@pytest.mark.skipif(SPLIT, reason="in a cluster the place goes with the row, and fences the host")
async def test_a_moderation_is_acknowledged_only_if_it_is_durable(database_url: str) -> None:
    """The instance's row is deleted behind the server's back."""
    async with running(database_url) as harness:
        ada, bob = await harness.account(), await harness.account()
        for type_, over in (("ban", "socket"), ("warn", "socket"), ("ban", "http")):
            room = (await harness.instance(ada)).id
            async with connected(harness, ada) as host, connected(harness, bob) as guest:
                await host.join(room)
                await guest.join(room)
                await harness.store.database.execute("DELETE FROM instances WHERE id = $1", room)
                wanted = {"user": bob.id, "type": type_}
                if over == "socket":
                    answer = await host.ask("instance-moderate", wanted, subgroup=room)
                    assert answer["error"]["code"] == HIDDEN
                else:
                    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
                        url = f"http://{harness.host}:{harness.port}/api/instances/{room}/moderate"
                        bearer = {"Authorization": f"Bearer {ada.token}"}
                        refused = await client.post(url, json=wanted, headers=bearer)
                    assert refused.status_code == 404
                # The endpoint looks for the row first, so only the command reaches the instance.
                if over == "socket" and not any(closed(one) for one in host.skipped):
                    await host.until(closed)
                assert await harness.store.bans.of(room) == []


async def test_the_owner_of_a_full_instance_gets_the_next_seat(database_url: str) -> None:
    async with running(database_url) as harness, AsyncExitStack() as stack:
        owner, one, two = [await harness.account() for _ in range(3)]
        room = (await harness.instance(owner, capacity=1)).id
        inside, waiting, host = [
            await stack.enter_async_context(connected(harness, each)) for each in (one, two, owner)
        ]
        await inside.join(room)
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://{harness.host}:{harness.port}", timeout=PATIENCE_S)
        )

        async def candidate(account: Account) -> Json:
            headers = {"Authorization": f"Bearer {account.token}"}
            answer = await client.post(f"/api/instances/{room}/candidate", headers=headers)
            entry: Json = answer.json()["data"]
            return entry

        assert (await candidate(two))["position"] == 1
        assert (await host.ask("instance-join", {"instance": room}))["error"]["code"] == FULL
        assert (await candidate(owner))["position"] == 1
        answer = await host.ask(
            "instance-moderate", {"user": one.id, "type": "kick"}, subgroup=room
        )
        assert "error" not in answer
        assert (await host.join(room))["role"] == "owner"
        assert (await waiting.ask("instance-join", {"instance": room}))["error"]["code"] == FULL


async def test_a_key_that_is_set_to_null_gives_its_place_back(database_url: str) -> None:
    async with (
        running(database_url, retained_keys_per_player=2) as harness,
        AsyncExitStack() as stack,
    ):
        ada, bob, eve = [await harness.account() for _ in range(3)]
        room = (await harness.instance(ada)).id
        speaker, listener = [
            await stack.enter_async_context(connected(harness, each)) for each in (ada, bob)
        ]
        await speaker.join(room)
        await listener.join(room)

        async def put(key: str, value: str) -> int | None:
            text = f'{{"command":"instance-data","state":1,"subgroup":"{room}",'
            await speaker.socket.send_message(f'{text}"key":"{key}","data": {value} }}')
            answer = await speaker.until(lambda message: "state" in message)
            return answer["error"]["code"] if "error" in answer else None

        assert [await put("a", "1"), await put("b", "2"), await put("c", "3")] == [None, None, 119]
        assert [await put("a", "null"), await put("c", "3")] == [None, None]
        heard = [await listener.hear() for _ in range(4)]
        assert [(each["key"], each["data"]) for each in heard] == [
            ("a", 1), ("b", 2), ("a", None), ("c", 3),
        ]  # fmt: skip
        late = await stack.enter_async_context(connected(harness, eve))
        kept = (await late.join(room))["retained"]
        assert [(each["key"], each["data"]) for each in kept] == [("b", 2), ("c", 3)]


async def test_an_instance_that_nobody_has_entered_outlives_the_sweep_and_a_restart(
    database_url: str,
) -> None:
    settings: dict[str, Any] = {"address": "play.example.org", "empty_instance_s": 0}
    async with running(database_url, **settings) as harness:
        ada = await harness.account()
        fresh, used = await harness.instance(ada), await harness.instance(ada)
        async with connected(harness, ada) as player:
            await player.join(used.id)
            await player.ask("instance-leave", {"instance": used.id})

        async def gone() -> bool:
            return await harness.store.instances.get(used.id) is None

        await eventually(gone)
        await harness.server.node.instances.sweep()
        assert await harness.store.instances.get(fresh.id) is not None
    async with running(database_url, **settings) as harness:
        await harness.server.node.instances.sweep()
        assert await harness.store.instances.get(fresh.id) is not None
    async with running(database_url, unused_instance_s=0, **settings) as harness:

        async def ended() -> bool:
            return await harness.store.instances.get(fresh.id) is None

        await eventually(ended)
