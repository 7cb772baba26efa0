"""Our tokens at other servers: got once for all who wait, kept encrypted, renewed in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from reileta.errors import (
    ChallengeRefused,
    MalformedData,
    NoData,
    NoResponse,
    ReiletaError,
    ServerBlocked,
)
from reileta.federation.challenger import Challenger
from reileta.federation.client import RemoteAnswer
from reileta.federation.new_servers import NewServers
from reileta.federation.peers import Peers
from reileta.federation.pinning import PeerNews
from reileta.federation.sealing import Sealing
from reileta.observability.activity_log import ActivityLog
from reileta.records import PeerServer
from reileta.rules.federation.server_rules import Decision
from reileta.security.server_key import ServerKey
from reileta.store import Store
from tests.conftest import ManualClock
from tests.reileta.federation.fake_client import FakeClient, Sent, answered

A, B = "a.example", "b.example"
MONTH_MS = 30 * 24 * 3600 * 1000
DAY_MS = 24 * 3600 * 1000


class Stage:
    """A challenger of A, and a server B that is played."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.key = ServerKey.generate()
        self.b_key = ServerKey.generate()
        self.numbers = 0
        self.decision: Decision = "allow"
        self.published: list[PeerServer] = []
        self.before: Callable[[Sent], Awaitable[RemoteAnswer | None]] | None = None
        self.client = FakeClient(self.answer)
        self.peers = Peers(
            address=A,
            client=self.client,
            clock=clock,
            decide=lambda _: self.decision,
            jitter=lambda low, high: 1.0,
        )
        activity = ActivityLog(clock)
        self.challenger = Challenger(
            address=A,
            peers=self.peers,
            secure=self.client.secure,
            store=store,
            clock=clock,
            sealing=lambda: Sealing(self.key),
            activity=activity,
            news=PeerNews(activity, self.published.append),
            new_servers=NewServers(clock),
        )
        self.peers.tokens = self.challenger

    async def answer(self, sent: Sent) -> RemoteAnswer:
        if self.before is not None:
            answer = await self.before(sent)
            if answer is not None:
                return answer
        if sent.path == "/.well-known/avr":
            return answered({"address": sent.server, "public_key": self.b_key.public_base64url})
        if (sent.method, sent.path) == ("PUT", "/api/challenges"):
            self.numbers += 1
            return answered(
                {
                    "id": f"t{self.numbers}",
                    "token": f"sa_{self.numbers:040}",
                    "expires_at": self.clock.now_ms() + MONTH_MS,
                }
            )
        return answered({})

    def sent(self, method: str) -> list[Sent]:
        return [one for one in self.client.sent if one.method == method]


@pytest.fixture
async def stage(store: Store, clock: ManualClock) -> Stage:
    return Stage(store, clock)


async def test_a_challenge_gives_a_token_that_is_kept(stage: Stage) -> None:
    token = await stage.challenger.obtain(B)
    (put,) = stage.sent("PUT")
    assert put.body["server"] == A
    assert len(put.body["id"]) == len(put.body["nonce"]) == 43
    assert put.body["id"] != put.body["nonce"]
    assert put.headers == {}
    assert await stage.challenger.obtain(B) == await stage.challenger.known(B) == token
    assert len(stage.sent("PUT")) == 1
    (known,) = stage.published
    assert (known.address, known.public_key) == (B, stage.b_key.public_base64url)


async def test_the_database_alone_gives_no_access(stage: Stage) -> None:
    token = await stage.challenger.obtain(B)
    for table in ("peer_tokens", "challenges", "servers"):
        rows = await stage.store.database.fetch(f"SELECT row_to_json({table})::text FROM {table}")
        assert rows
        assert not any(token in row[0] or token.encode().hex() in row[0] for row in rows)
    assert token not in repr(await stage.store.servers.peer_tokens())
    stage.key = ServerKey.generate()  # as with a stolen database and another key
    assert await stage.challenger.known(B) is None


async def test_the_challenge_can_be_fetched_while_the_other_server_answers_only(
    stage: Stage,
) -> None:
    fetched: list[bool] = []

    async def fetch(sent: Sent) -> None:
        if sent.method == "PUT":
            fetched.append(await stage.store.challenges.fetch("x" * 43) is not None)

    stage.before = fetch
    await stage.challenger.obtain(B)
    id_ = stage.sent("PUT")[0].body["id"]
    assert await stage.store.challenges.fetch(id_) is None  # it was answered: nobody else may
    assert fetched == [False]


async def test_all_who_wait_for_a_server_share_one_challenge(
    stage: Stage, nursery: trio.Nursery
) -> None:
    gate = trio.Event()

    async def wait(sent: Sent) -> None:
        await gate.wait()

    stage.before = wait
    tokens: list[str] = []

    async def obtain() -> None:
        tokens.append(await stage.challenger.obtain(B))

    scopes = [trio.CancelScope() for _ in range(5)]

    async def one(scope: trio.CancelScope) -> None:
        with scope:
            await obtain()

    for scope in scopes:
        nursery.start_soon(one, scope)
    while not stage.client.sent:
        await trio.sleep(0)
    scopes[0].cancel()  # the one that leads: another one takes its place
    gate.set()
    while len(tokens) < 4:
        await trio.sleep(0)
    assert len(set(tokens)) == 1
    assert len(stage.sent("PUT")) == 1
    assert stage.challenger.debug_counts() == {"challenges_out": 0}


async def test_all_who_wait_share_a_failure_and_the_next_one_tries_again(stage: Stage) -> None:
    gate = trio.Event()

    async def refuse(sent: Sent) -> RemoteAnswer | None:
        await gate.wait()
        return answered(status=403, code=110) if sent.method == "PUT" else None

    stage.before = refuse
    refused: list[ReiletaError] = []

    async def obtain() -> None:
        try:
            await stage.challenger.challenge(B)
        except ChallengeRefused as error:
            refused.append(error)

    async with trio.open_nursery() as waiting:
        for _ in range(4):
            waiting.start_soon(obtain)
        while not stage.client.sent:  # by then, all of them wait
            await trio.sleep(0)
        gate.set()
    assert len(refused) == 4
    assert len(stage.sent("PUT")) == 1
    stage.before = None
    assert await stage.challenger.obtain(B)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answered(status=403, code=110), ChallengeRefused),
        (answered(status=403, code=135), ChallengeRefused),
        (answered(status=404, code=35), ChallengeRefused),
        (answered(status=404, code=2), NoData),
        (answered(status=503, code=122), NoResponse),
        (answered(status=502, code=6), NoResponse),
        (answered(status=429, code=102), NoResponse),
        (answered({"id": "t", "token": "ua_" + "x" * 43, "expires_at": 2**52}), MalformedData),
        (answered({"id": "t", "token": "sa_" + "x" * 43, "expires_at": 2**52}), MalformedData),
        (answered({"id": "t", "token": "sa_" + "x" * 43, "expires_at": 1}), MalformedData),
        (answered({"id": "..", "token": "sa_" + "x" * 43, "expires_at": 1}), MalformedData),
        (answered({"id": "t", "token": "sa_x\r\nX: y", "expires_at": 1}), MalformedData),
        (answered({"id": "t", "token": "sa_" + "x" * 9999, "expires_at": 1}), MalformedData),
        (answered({"id": "t"}), MalformedData),
        (answered([]), MalformedData),
    ],
    ids=str,
)
async def test_an_answer_that_is_no_token_is_none(
    stage: Stage, answer: RemoteAnswer, error: type[ReiletaError]
) -> None:
    async def give(sent: Sent) -> RemoteAnswer | None:
        return answer if sent.method == "PUT" else None

    stage.before = give
    with pytest.raises(error):
        await stage.challenger.obtain(B)
    assert await stage.challenger.known(B) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "c.example"},
        {"address": "b.example:3032"},
        {"public_key": "x"},
        {"public_key": "A" * 43},
        {"keys": [{"public_key": "x", "since": 1, "by": "y"}] * 9},
    ],
    ids=str,
)
async def test_a_server_that_is_another_one_gets_no_challenge(
    stage: Stage, changes: dict[str, object]
) -> None:
    async def give(sent: Sent) -> RemoteAnswer | None:
        data = {"address": B, "public_key": stage.b_key.public_base64url, **changes}
        return answered(data) if sent.method == "GET" else None

    stage.before = give
    with pytest.raises(MalformedData):
        await stage.challenger.obtain(B)
    assert stage.sent("PUT") == []
    assert await stage.store.servers.get(B) is None


async def test_gateways_elsewhere_are_not_believed(stage: Stage) -> None:
    gateways = {"http": "https://b.example/x", "ws": "wss://evil.example"}

    async def give(sent: Sent) -> RemoteAnswer | None:
        if sent.method == "PUT":
            return None
        key = stage.b_key.public_base64url
        return answered({"address": B, "public_key": key, "gateways": dict(gateways)})

    stage.before = give
    for url, believed in (
        ("https://gate.b.example:8443", True),
        ("https://b.example.evil.example", False),
        ("http://b.example", False),
        ("https://user@b.example", False),
        ("https://b.example?x=1", False),
        ("javascript:alert(1)", False),
        ("https://b.example\n", False),
        ("https://b.example/" + "x" * 600, False),
    ):
        gateways["http"] = url
        await stage.challenger.refresh(B)
        found = await stage.store.servers.get(B)
        assert found is not None
        assert found.gateway_http == (url if believed else None), url
        assert found.gateway_ws is None


async def test_a_token_is_renewed_after_two_thirds_of_its_life(stage: Stage) -> None:
    first = await stage.challenger.obtain(B)
    stage.clock.advance(MONTH_MS * 2 // 3 - 1)
    await stage.challenger.renew()
    assert await stage.challenger.known(B) == first
    stage.clock.advance(1)
    await stage.challenger.renew()
    second = await stage.challenger.known(B)
    assert second not in (None, first)
    assert len(stage.sent("PUT")) == 2
    await stage.challenger.renew()
    assert len(stage.sent("PUT")) == 2


async def test_a_token_that_can_not_be_renewed_is_used_to_its_end(stage: Stage) -> None:
    first = await stage.challenger.obtain(B)

    async def away(sent: Sent) -> RemoteAnswer:
        raise NoResponse(cause="connection refused")

    stage.before = away
    stage.clock.advance(MONTH_MS - 1)
    for _ in range(5):
        await stage.challenger.renew()
    assert await stage.challenger.known(B) == first
    assert len(stage.client.sent) == 2 + 3  # then it is left alone for a while
    stage.clock.advance(1)
    assert await stage.challenger.known(B) is None
    await stage.challenger.renew()
    assert await stage.store.servers.peer_tokens() == []


async def test_what_a_server_says_is_read_again_daily(stage: Stage) -> None:
    await stage.challenger.obtain(B)
    gets = len(stage.sent("GET"))
    stage.clock.advance(DAY_MS - 1)
    await stage.challenger.renew()
    assert len(stage.sent("GET")) == gets
    stage.clock.advance(1)
    await stage.challenger.renew()
    await stage.challenger.renew()
    assert len(stage.sent("GET")) == gets + 1


async def test_a_rejected_token_is_forgotten_unless_it_was_replaced(stage: Stage) -> None:
    first = await stage.challenger.obtain(B)
    second = await stage.challenger.challenge(B)
    await stage.challenger.rejected(B, first)
    assert await stage.challenger.known(B) == second
    await stage.challenger.rejected(B, second)
    assert await stage.challenger.known(B) is None


async def test_a_block_within_a_challenge_wins(stage: Stage) -> None:
    async def block(sent: Sent) -> None:
        if sent.method == "PUT":
            stage.decision = "block"

    stage.before = block
    with pytest.raises(ServerBlocked):
        await stage.challenger.obtain(B)
    assert await stage.store.servers.peer_tokens() == []
