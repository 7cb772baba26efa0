"""Requests to other servers: tokens, backoff, bounds, and what counts as an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from reileta.errors import (
    BadData,
    MalformedData,
    NoData,
    NoResponse,
    Overloaded,
    ReiletaError,
    ServerBlocked,
)
from reileta.federation.client import RemoteAnswer
from reileta.federation.peers import LOOK_MS, REMEMBERED, Method, Peers
from reileta.federation.turns import (
    ALL_PEERS,
    PER_ASKER,
    PER_PEER,
    REVOCATIONS,
    UNPROVEN,
    WAIT_S,
    WAITING,
)
from reileta.rules.federation.server_rules import Decision
from reileta.security.server_key import ServerKey
from tests.conftest import ManualClock
from tests.reileta.federation.fake_client import Answerer, FakeClient, Sent, answered

B = "b.example:3032"


class FakeTokens:
    """Tokens by server; `fresh` are those of further challenges."""

    def __init__(self, known: dict[str, str] | None = None, fresh: list[str] | None = None) -> None:
        self.tokens = known or {}
        self.fresh = fresh or []
        self.asked: list[str] = []

    async def known(self, server: str) -> str | None:
        return self.tokens.get(server)

    async def obtain(self, server: str) -> str:
        if server not in self.tokens:
            self.asked.append(server)
            self.tokens[server] = self.fresh.pop(0)
        return self.tokens[server]

    async def rejected(self, server: str, token: str) -> None:
        if self.tokens.get(server) == token:
            del self.tokens[server]


def peers(
    answer: Answerer,
    clock: ManualClock,
    *,
    tokens: FakeTokens | None = None,
    decisions: dict[str, Decision] | None = None,
) -> tuple[Peers, FakeClient]:
    client = FakeClient(answer)
    made = Peers(
        address="a.example",
        client=client,
        clock=clock,
        decide=lambda server: (decisions or {}).get(server, "allow"),
        tokens=tokens,
        jitter=lambda low, high: 1.0,
    )
    return made, client


async def fine(sent: Sent) -> RemoteAnswer:
    return answered({"ok": True})


def constantly(answer: RemoteAnswer | ReiletaError) -> Answerer:
    async def give(sent: Sent) -> RemoteAnswer:
        if isinstance(answer, ReiletaError):
            raise answer
        return answer

    return give


async def test_a_request_has_our_token_and_says_whether_it_is_passed_on(
    clock: ManualClock,
) -> None:
    made, client = peers(fine, clock, tokens=FakeTokens({B: "sa_1"}))
    await made.ask("GET", B, "/api/users", query=[("query", "é")], via=True)
    await made.ask("PUT", B, "/api/x", body={"a": 1}, token="never")
    await made.ask("GET", "c.example", "/api/users")
    first, second, third = client.sent
    assert first.headers == {"Authorization": "Bearer sa_1", "Via": "avr/a.example"}
    assert first.query == (("query", "é"),)
    assert (second.headers, second.body) == ({}, {"a": 1})
    assert third.headers == {}


async def test_a_token_that_is_needed_is_got_by_a_challenge(clock: ManualClock) -> None:
    tokens = FakeTokens(fresh=["sa_new"])
    made, client = peers(fine, clock, tokens=tokens)
    await made.ask("PUT", B, "/api/integrity", body={}, token="required")
    assert tokens.asked == [B]
    assert client.sent[0].headers["Authorization"] == "Bearer sa_new"


async def test_a_token_that_is_refused_is_replaced_once(clock: ManualClock) -> None:
    tokens = FakeTokens({B: "sa_old"}, fresh=["sa_new"])

    async def only_new(sent: Sent) -> RemoteAnswer:
        good = sent.headers.get("Authorization") == "Bearer sa_new"
        return answered(1) if good else answered(status=401, code=101)

    made, client = peers(only_new, clock, tokens=tokens)
    assert (await made.ask("GET", B, "/api/users")).status == 200
    assert [one.headers["Authorization"] for one in client.sent] == [
        "Bearer sa_old",
        "Bearer sa_new",
    ]
    # A server that refuses every token is not asked for ever.
    tokens = FakeTokens({B: "sa_1"}, fresh=["sa_2", "sa_3"])
    made, client = peers(constantly(answered(status=401, code=101)), clock, tokens=tokens)
    answer = await made.ask("GET", B, "/api/users")
    assert answer.error is not None
    assert (answer.status, answer.error.code, len(client.sent)) == (401, 101, 2)


async def test_nothing_is_sent_to_a_blocked_server(clock: ManualClock) -> None:
    decisions: dict[str, Decision] = {B: "block", "c.example": "silence"}
    made, client = peers(fine, clock, decisions=decisions)
    with pytest.raises(ServerBlocked):
        await made.ask("GET", B, "/api/users")
    with pytest.raises(ServerBlocked):
        await made.token(B)
    assert client.sent == []
    assert (await made.ask("GET", "c.example", "/api/users")).status == 200


async def test_a_block_counts_for_a_request_that_waits_in_line(
    clock: ManualClock, nursery: trio.Nursery
) -> None:
    gate = trio.Event()
    decisions: dict[str, Decision] = {}

    async def slow(sent: Sent) -> RemoteAnswer:
        await gate.wait()
        return answered(1)

    made, client = peers(slow, clock, decisions=decisions)
    refused: list[str] = []

    async def ask(name: str) -> None:
        try:
            await made.ask("GET", B, f"/{name}")
        except ServerBlocked:
            refused.append(name)

    for number in range(PER_PEER + 1):
        nursery.start_soon(ask, str(number))
    await wait_all_tasks_blocked()
    assert len(client.sent) == PER_PEER
    decisions[B] = "block"
    gate.set()
    await wait_all_tasks_blocked()
    assert len(refused) == 1
    assert len(client.sent) == PER_PEER


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (RemoteAnswer(200, {}, b"<html>"), BadData),
        (RemoteAnswer(200, {}, b""), BadData),
        (RemoteAnswer(200, {}, b"[1]"), BadData),
        (RemoteAnswer(200, {}, b'{"data":1'), BadData),
        (RemoteAnswer(200, {}, b'{"data":' + b"[" * 500_000), BadData),
        (RemoteAnswer(200, {}, b'{"error": 5}'), BadData),
        (RemoteAnswer(200, {}, b'{"data": "\xff"}'), MalformedData),
        (RemoteAnswer(200, {}, b'{"data": {"\xff": true}}'), MalformedData),
        (RemoteAnswer(400, {}, b'{"error": {"code": 1, "message": "\xff"}}'), BadData),
        (RemoteAnswer(503, {}, b'{"error": {"code": 1, "message": "\xff"}}'), NoResponse),
        (RemoteAnswer(200, {}, b"{}"), NoData),
        (RemoteAnswer(404, {}, b"{}"), BadData),
        (RemoteAnswer(404, {}, b'{"data": {"ok": true}}'), BadData),
        (RemoteAnswer(502, {}, b"<html>"), NoResponse),
        (RemoteAnswer(503, {}, b"{}"), NoResponse),
    ],
    ids=str,
)
async def test_what_is_not_an_envelope_is_an_error_of_that_server(
    clock: ManualClock, answer: RemoteAnswer, error: type[ReiletaError]
) -> None:
    made, _ = peers(constantly(answer), clock)
    with pytest.raises(error):
        (await made.ask("GET", B, "/api/users")).into(dict[str, bool])


async def test_an_error_that_the_server_decided_on_is_an_answer(clock: ManualClock) -> None:
    body = json.dumps({"error": {"code": 17, "message": "x" * 10_000}, "data": 1}).encode()
    made, _ = peers(constantly(RemoteAnswer(404, {}, body)), clock)
    answer = await made.ask("GET", B, "/api/users/u")
    assert answer.error is not None
    assert (answer.status, answer.data, answer.error.code) == (404, None, 17)
    assert len(answer.error.message) <= 200
    with pytest.raises(NoData):
        answer.into(int)


@pytest.mark.parametrize(
    "failure",
    [
        NoResponse(cause="connection refused"),
        answered(status=500, code=16),
        answered(status=503, code=122),
        answered(status=429, code=102),
        answered(status=401, code=101),
    ],
    ids=str,
)
async def test_a_server_that_fails_three_times_is_left_alone_for_longer_and_longer(
    clock: ManualClock, failure: RemoteAnswer | ReiletaError
) -> None:
    state: list[RemoteAnswer | ReiletaError] = [failure]

    async def give(sent: Sent) -> RemoteAnswer:
        if isinstance(state[0], ReiletaError):
            raise state[0]
        return state[0]

    made, client = peers(give, clock)

    async def attempt() -> bool:
        """Whether the server was asked."""
        before = len(client.sent)
        try:
            await made.ask("GET", B, "/api/users")
        except NoResponse as error:
            asked = len(client.sent) > before
            return asked or not 0 < (error.retry_after_s or 0) <= 600
        return len(client.sent) > before

    assert [await attempt() for _ in range(4)] == [True, True, True, False]
    failures, retry_at = made.condition(B)
    assert (failures, retry_at) == (3, clock.now_ms() + 5_000)
    clock.advance(4_999)
    assert not await attempt()
    clock.advance(1)
    assert await attempt()  # and it fails again
    clock.advance(9_999)
    assert not await attempt()
    clock.advance(1)
    state[0] = answered(1)
    assert await attempt()
    assert made.condition(B) == (0, None)
    assert await attempt()


async def test_a_server_that_proves_itself_is_not_left_alone_any_more(clock: ManualClock) -> None:
    made, client = peers(constantly(NoResponse(cause="refused")), clock)
    made.proved(B)  # nothing is known of it
    for _ in range(3):
        with pytest.raises(NoResponse):
            await made.ask("GET", B, "/api/users")
    assert made.condition(B)[0] == 3
    made.proved(B)
    assert made.condition(B) == (0, None)
    with pytest.raises(NoResponse):
        await made.ask("GET", B, "/api/users")
    assert len(client.sent) == 4


async def test_errors_that_are_the_requests_own_do_not_count(clock: ManualClock) -> None:
    made, client = peers(constantly(answered(status=404, code=17)), clock)
    for _ in range(10):
        await made.ask("GET", B, "/api/users/u")
    assert len(client.sent) == 10


async def test_a_server_is_asked_again_when_it_wants_within_ten_minutes(
    clock: ManualClock,
) -> None:
    made, _ = peers(constantly(answered(status=429, code=102, retry_after="30")), clock)
    await made.ask("GET", B, "/api/users")
    assert made.condition(B) == (1, clock.now_ms() + 30_000)
    for wish in ("99999999999", "soon", "-5", "", "1" * 5000):
        made, _ = peers(constantly(answered(status=429, code=102, retry_after=wish)), clock)
        await made.ask("GET", B, "/api/users")
        _, retry_at = made.condition(B)
        assert retry_at is None or retry_at <= clock.now_ms() + 600_000


async def test_a_slow_server_costs_others_nothing(
    clock: ManualClock, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def slow(sent: Sent) -> RemoteAnswer:
        if sent.server == B:
            await trio.sleep_forever()
        return answered(1)

    made, client = peers(slow, clock)

    async def ask() -> None:
        with pytest.raises(Overloaded):
            await made.ask("GET", B, "/api/users")

    for _ in range(PER_PEER):
        nursery.start_soon(made.ask, "GET", B, "/api/users")
    await wait_all_tasks_blocked()
    for _ in range(WAITING):
        nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    assert len(client.sent) == PER_PEER
    await ask()  # the line is full
    before = trio.current_time()
    assert (await made.ask("GET", "c.example", "/api/users")).status == 200
    assert trio.current_time() == before
    await trio.sleep(WAIT_S + 1)  # those in line have given up
    nursery.cancel_scope.cancel()


async def sleeps(sent: Sent) -> RemoteAnswer:
    if sent.path == "/slow":
        await trio.sleep_forever()
    return answered(1)


async def test_the_number_of_requests_under_way_is_bounded(
    clock: ManualClock, nursery: trio.Nursery
) -> None:
    made, client = peers(sleeps, clock)
    names = [f"s{number}.example" for number in range(ALL_PEERS + 5)]
    for name in names:
        await made.ask("GET", name, "/")
    client.sent.clear()
    for name in names:
        nursery.start_soon(made.ask, "GET", name, "/slow")
    await wait_all_tasks_blocked()
    assert len(client.sent) == ALL_PEERS
    # To end a token there are turns of their own.
    for name in names:
        nursery.start_soon(partial(made.ask, "DELETE", name, "/slow", revocation=True))
    await wait_all_tasks_blocked()
    assert len(client.sent) == ALL_PEERS + min(len(names), REVOCATIONS)
    nursery.cancel_scope.cancel()


async def test_servers_that_have_not_answered_leave_turns_to_those_that_have(
    clock: ManualClock, nursery: trio.Nursery
) -> None:
    made, client = peers(sleeps, clock, tokens=FakeTokens({"token.example": "sa_1"}))
    await made.ask("GET", B, "/")
    client.sent.clear()
    for number in range(ALL_PEERS):
        nursery.start_soon(made.ask, "GET", f"s{number}.example", "/slow")
    await wait_all_tasks_blocked()
    assert len(client.sent) == UNPROVEN
    for server in (B, "token.example"):
        assert (await made.ask("GET", server, "/")).status == 200
    nursery.cancel_scope.cancel()


async def test_slow_servers_that_one_user_names_take_only_its_own_turns(
    clock: ManualClock, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    made, client = peers(sleeps, clock)
    refused: list[str] = []

    async def ask(user: str, name: str) -> None:
        try:
            async with made.asking(user):
                await made.ask("GET", name, "/slow")
        except Overloaded:
            refused.append(user)

    for number in range(PER_ASKER + WAITING):
        if number == PER_ASKER:
            await wait_all_tasks_blocked()
        nursery.start_soon(ask, "u_mallory", f"s{number}.example")
    await wait_all_tasks_blocked()
    assert len(client.sent) == PER_ASKER
    assert refused == []
    await ask("u_mallory", "more.example")
    assert refused == ["u_mallory"]
    before = trio.current_time()
    async with made.asking("u_ada"):
        assert (await made.ask("GET", "c.example", "/")).status == 200
    assert trio.current_time() == before
    await trio.sleep(WAIT_S + 1)
    assert refused == ["u_mallory"] * (WAITING + 1)
    nursery.cancel_scope.cancel()


async def test_what_a_user_asked_for_is_forgotten(clock: ManualClock) -> None:
    made, _ = peers(fine, clock)
    async with made.asking("u_ada"), made.asking("u_ada"), made.asking("u_bob"):
        assert made.debug_counts()["askers"] == 2
    assert made.debug_counts()["askers"] == 0
    with trio.CancelScope() as scope:
        async with made.asking("u_ada"):
            scope.cancel()
            await trio.sleep_forever()
    assert made.debug_counts()["askers"] == 0


# Base paths --------------------------------------------------------------------------------------


class BelowAPath:
    """A server whose API is below a path; at its root is something else."""

    def __init__(self, described: Mapping[str, object] | None = None) -> None:
        self.base = "/vr"
        self.described = {
            "address": B,
            "public_key": ServerKey.generate().public_base64url,
            "gateways": {"http": f"https://{B}{self.base}"},
            **(described or {}),
        }

    async def __call__(self, sent: Sent) -> RemoteAnswer:
        if sent.path == "/.well-known/avr":
            return answered(self.described)
        if sent.path.startswith(f"{self.base}/api/"):
            return answered(sent.path)
        return RemoteAnswer(404, {}, b"<html>")


def with_base(
    answer: Answerer, clock: ManualClock, base: str | None = None
) -> tuple[Peers, FakeClient]:
    async def known(server: str) -> str | None:
        return base

    made, client = peers(answer, clock)
    made = Peers(
        address="a.example",
        client=client,
        clock=clock,
        decide=lambda _: "allow",
        base_path=known,
    )
    return made, client


async def test_the_api_of_a_known_server_is_where_it_says(clock: ManualClock) -> None:
    made, client = with_base(BelowAPath(), clock, "/vr")
    methods: tuple[Method, ...] = ("GET", "PUT", "DELETE")
    for method in methods:
        assert (await made.ask(method, B, "/api/users")).into(str) == "/vr/api/users"
    await made.ask("GET", B, "/.well-known/avr")
    assert {one.path for one in client.sent} == {"/vr/api/users", "/.well-known/avr"}


async def test_an_unknown_server_is_asked_where_its_api_is_if_its_answer_makes_no_sense(
    clock: ManualClock,
) -> None:
    made, client = with_base(BelowAPath(), clock)
    for _ in range(2):
        assert (await made.ask("GET", B, "/api/users")).into(str) == "/vr/api/users"
    assert [one.path for one in client.sent] == [
        "/api/users",
        "/.well-known/avr",
        "/vr/api/users",
        "/vr/api/users",
    ]


@pytest.mark.parametrize(
    "described",
    [
        {"gateways": {"http": f"https://{B}"}},
        {"gateways": {"http": "https://other.example/vr"}},
        {"gateways": {"http": f"https://{B}/../vr"}},
        {"gateways": {"http": f"https://{B}/api/vr"}},
        {"gateways": {"http": f"https://{B}/v r"}},
        {"gateways": {"http": f"https://{B}" + "/a" * 20}},
        {"gateways": {}},
        {"address": "other.example"},
        {"public_key": "no key"},
    ],
)
async def test_a_server_that_names_no_path_of_its_own_is_asked_at_its_root(
    clock: ManualClock, described: dict[str, object]
) -> None:
    made, client = with_base(BelowAPath(described), clock)
    for expected in (2, 3):  # it is not asked for its path each time
        with pytest.raises(BadData):
            await made.ask("GET", B, "/api/users")
        assert len(client.sent) == expected
    clock.advance(LOOK_MS)
    with pytest.raises(BadData):
        await made.ask("GET", B, "/api/users")
    assert len(client.sent) == 5


async def test_a_cancelled_request_gives_its_place_back(clock: ManualClock) -> None:
    async def slow(sent: Sent) -> RemoteAnswer:
        if sent.path == "/slow":
            await trio.sleep_forever()
        return answered(1)

    made, _ = peers(slow, clock)
    for _ in range(ALL_PEERS * 2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.ask, "GET", B, "/slow")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert (await made.ask("GET", B, "/api/users")).status == 200


async def test_servers_that_were_asked_long_ago_are_forgotten(clock: ManualClock) -> None:
    made, _ = peers(fine, clock)
    for number in range(REMEMBERED + 10):
        await made.ask("GET", f"s{number}.example", "/")
    assert made.debug_counts()["peers"] == REMEMBERED
