"""Challenges of other servers: what a refused one costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address

import pytest
import trio

from reileta.errors import ChallengeRefused, Overloaded
from reileta.federation.client import GuardedClient
from reileta.federation.new_servers import PER_DOMAIN, NewServers
from reileta.federation.pinning import PeerNews
from reileta.federation.verifier import ChallengeVerifier, Claim
from reileta.observability.activity_log import ActivityLog
from reileta.observability.metrics import Metrics
from reileta.rules.federation.networks import IPAddress, Networks
from reileta.rules.federation.signatures import challenge_bytes, encode
from reileta.security.server_key import ServerKey
from reileta.store import Store
from tests.conftest import ManualClock
from tests.reileta.federation.fake_client import FakeClient, Sent, answered

OWN, A = "b.example", "a.example"
ID, NONCE = "i" * 43, "n" * 43


def verifier(
    store: Store,
    clock: ManualClock,
    client: GuardedClient | FakeClient,
    proved: Callable[[str], None] = lambda _: None,
) -> ChallengeVerifier:
    activity = ActivityLog(clock)
    return ChallengeVerifier(
        address=OWN,
        client=client,
        store=store,
        clock=clock,
        decide=lambda _: "allow",
        activity=activity,
        news=PeerNews(activity, lambda _: None),
        counters=Metrics(),
        new_servers=NewServers(clock),
        proved=proved,
        limited=False,
    )


@pytest.mark.parametrize("there", [False, True], ids=["nobody is there", "another site is there"])
async def test_a_refused_challenge_costs_one_dns_query_and_one_connection(
    store: Store, clock: ManualClock, there: bool
) -> None:
    asked: list[str] = []
    connected: list[IPAddress] = []

    async def resolve(name: str) -> Sequence[IPAddress]:
        asked.append(name)
        return [ip_address("8.8.8.8")]

    async def connect(ip: IPAddress, port: int) -> trio.abc.Stream:
        connected.append(ip)
        if not there:
            raise ConnectionRefusedError
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(b"HTTP/1.1 404 X\r\nContent-Length: 2\r\n\r\n{}")
        return ours

    async with GuardedClient(
        address=OWN,
        own=lambda ip, port: False,
        allowed=Networks(),
        insecure=frozenset({A}),
        resolve=resolve,
        connect=connect,
    ) as client:
        with pytest.raises(ChallengeRefused):
            await verifier(store, clock, client).answer(Claim(A, ID, NONCE, "10.0.0.0/16"))
    assert (asked, len(connected)) == ([A], 1)


class Claimant:
    """Servers at any address, with one key, whose API is below a path."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.key = ServerKey.generate()

    async def __call__(self, sent: Sent) -> object:
        if sent.path == "/.well-known/avr":
            return answered(
                {
                    "address": sent.server,
                    "public_key": self.key.public_base64url,
                    "gateways": {"http": f"https://{sent.server}/vr/"},
                }
            )
        assert sent.path == f"/vr/api/challenges/{ID}"
        until = self.clock.now_ms() + 1000
        signed = challenge_bytes(sent.server, OWN, ID, NONCE, until)
        return answered(
            {
                "id": ID,
                "server": OWN,
                "nonce": NONCE,
                "expires_at": until,
                "signature": encode(self.key.sign(signed)),
            }
        )


async def test_only_a_server_whose_challenge_is_right_has_proved_itself(
    store: Store, clock: ManualClock
) -> None:
    proved: list[str] = []
    client = FakeClient(Claimant(clock))  # type: ignore[arg-type]
    made = verifier(store, clock, client, proved.append)
    with pytest.raises(ChallengeRefused):
        await made.answer(Claim(A, ID, "x" * 43, "10.0.0.0/16"))
    assert proved == []
    await made.answer(Claim(A, ID, NONCE, "10.0.0.0/16"))
    assert proved == [A]


async def test_one_network_and_one_domain_bring_few_servers_and_known_ones_pass(
    store: Store, clock: ManualClock
) -> None:
    """And each is asked for its challenge where it says that its API is."""
    made = verifier(store, clock, FakeClient(Claimant(clock)))  # type: ignore[arg-type]
    for number in range(PER_DOMAIN.burst):
        network = f"10.{number}.0.0/16"
        await made.answer(Claim(f"x{number}.evil.example", ID, NONCE, network))
    with pytest.raises(Overloaded) as refused:
        await made.answer(Claim("one.more.evil.example", ID, NONCE, "10.99.0.0/16"))
    assert refused.value.retry_after_s
    await made.answer(Claim("x0.evil.example", ID, NONCE, "10.0.0.0/16"))
    for number in range(PER_DOMAIN.burst):
        await made.answer(Claim(f"good{number}.example", ID, NONCE, "10.98.0.0/16"))
    with pytest.raises(Overloaded):
        await made.answer(Claim("good.example", ID, NONCE, "10.98.0.0/16"))
    assert (await store.servers.count())["known"] == 2 * PER_DOMAIN.burst
    assert made.debug_counts() == {"challenges_in": 0}
