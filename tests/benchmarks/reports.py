"""Made-up results, for tests of what is shown of them."""

from __future__ import annotations

from benchmarks.federation import FederationResult
from benchmarks.gateway import GatewayResult
from benchmarks.http import HttpResult, PathResult
from benchmarks.idle import IdleResult
from benchmarks.joins import JoinsResult
from benchmarks.link import LinkResult, LinkRow
from benchmarks.load import LoadResult
from benchmarks.queue import QueueResult
from benchmarks.report import HttpRun, Report, RoomRun, Sustained
from benchmarks.slow import SlowResult
from benchmarks.stats import Latency
from benchmarks.watchers import WatchersResult


def load_result(
    players: int = 100,
    rate: float = 20.0,
    p99_ms: float | None = 5.0,
    share: float = 1.0,
    pace: float = 1.0,
    late_ms: float = 0.1,
) -> LoadResult:
    """A run of 10 s after a second of warming up, delivered at `pace` times what was sent."""
    per_s = players * rate
    expected = int(per_s * 11 * (players - 1))
    latency = None if p99_ms is None else Latency(1000, p99_ms / 3, p99_ms, p99_ms * 2)
    return LoadResult(
        players=players,
        rate=rate,
        seconds=10.0,
        warm_up_s=1.0,
        messages_per_s=per_s,
        expected=expected,
        delivered=int(expected * share),
        share=share,
        deliveries_per_s=per_s * (players - 1) * pace,
        received_bytes_per_s=1e6,
        latency=latency,
        late_p99_ms=late_ms,
        generator_cpu=0.5,
        lost_connections=0,
        close_codes={},
        server_cpu=0.8,
        cpu_s_per_million=0.4,
        rss_bytes=60 << 20,
        rss_bytes_all=90 << 20,
    )


def http_run(server: str, per_s: float) -> HttpRun:
    """A run on one path."""
    latency = Latency(9, 1.0, 2.0, 3.0)
    path = PathResult("/api/time", per_s, latency, {"200": int(per_s * 5)}, 0.1, 0.4)
    return HttpRun(server, HttpResult(32, 5.0, [path]))


def full_report() -> Report:
    """All questions, answered as one would like."""
    rooms = []
    for players, ours, bun in ((100, 1.2, 0.8), (200, 2.1, 1.8), (300, 6.3, 2.2), (400, 25, 4.4)):
        rooms.append(RoomRun("Reileta", players, load_result(players, p99_ms=ours)))
        peer = load_result(players, p99_ms=2900, share=0.7, pace=0.6) if players == 200 else None
        if players == 100:
            peer = load_result(players, p99_ms=717)
        rooms.append(RoomRun("Node ws", players, peer))
        rooms.append(RoomRun("Bun", players, load_result(players, p99_ms=bun)))
    return Report(
        when="2026-01-02 03:04 UTC",
        machine="2 cores",
        pinned=True,
        quick=False,
        servers=["Reileta", "Node ws", "Bun"],
        missing={"Socket.IO": "socket.io is not installed"},
        rooms=rooms,
        sustained=[
            Sustained("Reileta", 3_190_000.0, True, 400, 20.0, None),
            Sustained("Node ws", 230_000.0, False, 100, 23.2, None),
            Sustained("Bun", 3_200_000.0, True, 400, 20.0, None),
        ],
        inbound=[Sustained("Reileta", 25_000.0, False, 200, 125.0, None)],
        idle=IdleResult(5000, 5000, 4.0, 30 * 1024.0, 31 * 1024.0, 60 << 20, 210 << 20, 0.01),
        joins=JoinsResult(1000, 3.0, 3.1, 499_500, True, 1000, 1 << 28, 2.5),
        queue=QueueResult(
            2000, 50, 1950, 100.0, Latency(1950, 5.0, 15.0, 30.0), True, True, 1950, 9000, 5.0
        ),
        watchers=WatchersResult(
            watchers=1000,
            rate=50.0,
            changes=500,
            changes_per_s=50.0,
            from_commit=Latency(500, 17.0, 36.0, 40.0),
            from_request=Latency(500, 20.0, 41.0, 50.0),
            events=480_000,
            events_per_s=48_000.0,
            gaps=0,
            all_arrived=True,
            generator_cpu=0.4,
            server_cpu=0.7,
            server_cpu_us_per_event=13.0,
        ),
        http=[http_run("Reileta", 9000.0), http_run("FastAPI", 8000.0)],
        federation=FederationResult(
            introduction=Latency(9, 10.0, 20.0, 30.0),
            introduction_with_challenge=Latency(9, 40.0, 60.0, 70.0),
            refused_challenge_cpu_ms=1.5,
            local_read=Latency(9, 0.5, 1.0, 2.0),
            cached_read=Latency(9, 0.7, 1.0, 2.0),
            direct_read=Latency(9, 2.0, 3.0, 4.0),
            uncached_read=Latency(9, 5.0, 8.0, 9.0),
        ),
        gateway=GatewayResult(
            mib=512,
            rounds=3,
            direct_up_mib_per_s=200.0,
            direct_down_mib_per_s=400.0,
            up_mib_per_s=160.0,
            down_mib_per_s=320.0,
            memory_mib=1.0,
        ),
        link=LinkResult(
            players=8,
            rate=20.0,
            rounds=3,
            load_average=1.0,
            rows=[
                LinkRow("at the server", 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0),
                LinkRow("over the link", 1.0, 2.5, 0.5, 1.5, 1.0, 2.0, 1.0),
                LinkRow("directly", 0.7, 1.4, 0.2, 0.4, 0.1, 0.9, 1.0),
            ],
        ),
        slow=SlowResult(
            players=100,
            fast_share=1.0,
            fast_p99_without_ms=1.0,
            fast_p99_with_ms=1.1,
            ratio=1.1,
            keys=100,
            keys_newest=100,
            keyed_sent=16_000,
            keyed_received=9_000,
            keyed_in_order=True,
            unkeyed_sent=16_000,
            unkeyed_received=4_000,
            unkeyed_outcome="closed 4008",
            fast_share_unkeyed=1.0,
            rss_before_bytes=60 << 20,
            rss_max_bytes=64 << 20,
            good=True,
        ),
    )
