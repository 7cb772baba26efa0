"""The server's counters, as plain attributes that hot paths increment.

Incrementing an attribute takes tens of nanoseconds; a metrics library's own counter takes a lock
and a lookup. So prometheus-client only reads the attributes, on each request of `/metrics`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from reileta import __version__

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Histogram:
    """Counts of values per bucket; `bounds` are the buckets' upper bounds, inclusive."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """Prometheus buckets: (upper bound, how many values were at most that)."""
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), total))
        return buckets


class HttpKey(NamedTuple):
    """The labels of a counted HTTP request. `route` is the rule (`/api/users/<id>`)."""

    method: str
    route: str
    status: int


class DatabaseCounters(Protocol):
    """The database's own counters."""

    @property
    def statements(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def available(self) -> bool: ...


class BackgroundTask(Protocol):
    """A background task's own counters."""

    @property
    def crashes(self) -> int: ...
    @property
    def failing(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class ClusterFigures:
    """A node's part in a cluster. `renewals` and the like are by witness: `nats`, `database`."""

    valid_for_s: float = 0.0
    nodes: int = 0
    falls: int = 0
    takeovers: int = 0
    renewals: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    renewal_s: Mapping[str, float] = field(default_factory=dict)
    claimed: int = 0
    given_back: int = 0
    fenced: int = 0


class Metrics:
    """The counters of one server process. The code that does the work increments them."""

    def __init__(self) -> None:
        # WebSockets
        self.connections = 0
        """Open WebSockets now."""
        self.connections_total = 0
        self.upgrades_refused: defaultdict[int, int] = defaultdict(int)
        """Upgrades that were answered with an HTTP error, by status."""
        self.messages_in = 0
        self.deliveries_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.backlog_bytes = 0
        """Bytes that wait now for slow sockets."""
        self.conflated = 0
        """Waiting values that were replaced by a newer value of the same key."""
        self.too_slow = 0
        """Sockets closed with 4008."""

        # Actors
        self.instances = 0
        """Instances that run in this process now."""
        self.players = 0
        """Players inside them now."""
        self.drains = 0
        self.drain_size = Histogram(SIZES)
        """Messages handled by one drain of a mailbox."""
        self.mailbox_depths: Callable[[], Mapping[str, int]] = dict
        """For each kind of actor, the messages that wait now in the fullest mailbox."""
        self.mailbox_wait = Histogram(SECONDS)
        """Seconds that a message waited in a mailbox."""
        self.fanout = Histogram(SECONDS)
        """Seconds from the arrival of a message with data to the fan-out that wrote it. Measured
        for some fan-outs, and there for the message that waited longest."""
        self.loop_lag = Histogram(SECONDS)
        """Seconds that the event loop was late."""
        self.mailbox_refused = 0
        self.relay_refused = 0
        """Messages refused because a mailbox was full."""
        self.actor_restarts = 0
        self.actor_crashes = 0

        self.background: Callable[[], Mapping[str, BackgroundTask]] = dict
        """The background tasks by name."""

        # Links of instance nodes
        self.links = 0
        """Nodes that are linked to this process now."""
        self.linked_instances = 0
        """Instances here that live on nodes which are linked now."""
        self.links_ended: defaultdict[str, int] = defaultdict(int)
        """Links that ended, by the name of their close code, or `lost`."""
        self.link_breaches = 0
        """How often nodes have broken the form."""
        self.link_items_in = 0
        """Messages to players that nodes have proposed."""
        self.link_items_out = 0
        """Items of instances that were sent to nodes."""
        self.link_held = 0
        """Values that waited because a node had too much to handle."""
        self.link_refused = 0
        """Messages refused for that reason."""
        self.link_round_trip = Histogram(SECONDS)
        """Seconds from a ping to its answer, of all links."""

        # The log
        self.log_dropped: Callable[[], int] = int
        """Lines that were dropped because nobody read the log."""

        # Other servers
        self.peer_requests: defaultdict[str, int] = defaultdict(int)
        """Requests to other servers, by their outcome: `2xx`, `no_response`, `bad_answer`, …"""
        self.peer_seconds = Histogram(SECONDS)
        self.peer_servers: Mapping[str, int] = {}
        """Other servers that are known, by their state."""
        self.challenges: defaultdict[str, int] = defaultdict(int)
        """Challenges of other servers, by their outcome: `accepted`, `refused`, `limited`."""
        self.guests_admitted = 0
        """Tokens issued to users of other servers."""
        self.guests_revoked = 0
        """Those of them that were revoked."""
        self.visits_begun = 0
        """Tokens that other servers issued to users of this one."""
        self.visits_revoked = 0
        """Those of them that the other servers have revoked."""
        self.remote_reads: defaultdict[str, int] = defaultdict(int)
        """Reads of other servers' objects, by their outcome."""

        self.cluster: Callable[[], ClusterFigures] = ClusterFigures
        """This node's part in the cluster; all zero without one."""

        # HTTP
        self.http_requests: defaultdict[HttpKey, int] = defaultdict(int)
        self.http_seconds: defaultdict[tuple[str, str], Histogram] = defaultdict(
            lambda: Histogram(SECONDS)
        )
        self.http_limited = 0
        self.clients_refused = 0
        """Requests answered with 429."""

    def peer_answered(self, outcome: str, seconds: float) -> None:
        """Counts one request to another server."""
        self.peer_requests[outcome] += 1
        self.peer_seconds.observe(seconds)

    def challenge_answered(self, outcome: str) -> None:
        """Counts one challenge of another server."""
        self.challenges[outcome] += 1

    def http(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one answered HTTP request."""
        self.http_requests[HttpKey(method, route, status)] += 1
        self.http_seconds[method, route].observe(seconds)

    def drained(self, kind: str, messages: int, waited_s: float) -> None:
        """An actor of that kind handled so many messages; the oldest had waited `waited_s`."""
        self.drains += 1
        self.drain_size.observe(messages)
        self.mailbox_wait.observe(waited_s)

    def crashed(self, kind: str, *, restarted: bool) -> None:
        """An actor of that kind crashed; `restarted` tells whether it was restarted."""
        self.actor_crashes += 1
        self.actor_restarts += restarted

    def refused(self, kind: str) -> None:
        """The mailbox of an actor of that kind was full, so a message was refused."""
        self.mailbox_refused += 1


class MetricsCollector(Collector):
    """Converts the counters to Prometheus metrics, on request."""

    _GAUGES: Final = (
        ("connections", "Open WebSockets"),
        ("instances", "Instances that live in this process"),
        ("players", "Players inside instances"),
        ("backlog_bytes", "Bytes that wait for sockets which can't keep up"),
        ("links", "Instance nodes that are linked to this process"),
        ("linked_instances", "Instances in this process that live on linked nodes"),
    )
    _COUNTERS: Final = (
        ("connections_total", "WebSockets accepted"),
        ("messages_in", "Messages that clients sent"),
        ("deliveries_out", "Messages delivered to clients"),
        ("bytes_in", "Bytes of messages that clients sent"),
        ("bytes_out", "Bytes of messages delivered to clients"),
        ("conflated", "Waiting values replaced by newer ones of the same key"),
        ("too_slow", "WebSockets closed because they could not keep up"),
        ("drains", "Drains of mailboxes"),
        ("mailbox_refused", "Messages refused because a mailbox was full"),
        ("relay_refused", "Publications that did not reach the cluster's bus"),
        ("actor_restarts", "Actors started again after a crash"),
        ("actor_crashes", "Actors that crashed"),
        ("http_limited", "HTTP requests refused by a rate limit"),
        ("clients_refused", "Requests and upgrades refused by a rule about clients"),
        ("link_breaches", "Breaches of form by instance nodes"),
        ("link_items_in", "Messages that instance nodes proposed"),
        ("link_items_out", "Items of instances sent to instance nodes"),
        ("link_held", "Values that waited for an instance node"),
        ("link_refused", "Messages refused because an instance node had too much to do"),
        ("guests_admitted", "Tokens issued to users of other servers"),
        ("guests_revoked", "Tokens of users of other servers that were revoked"),
        ("visits_begun", "Tokens that other servers issued to users of this one"),
        ("visits_revoked", "Tokens that other servers revoked because a session ended here"),
    )
    _HISTOGRAMS: Final = (
        ("drain_size", "drain_messages", "Messages handled by one drain"),
        ("mailbox_wait", "mailbox_wait_seconds", "How long messages waited in mailboxes"),
        ("fanout", "fanout_seconds", "From the arrival of the oldest data to its fan-out"),
        ("loop_lag", "loop_lag_seconds", "How late the event loop runs its tasks"),
        ("link_round_trip", "link_round_trip_seconds", "From a ping to a node to its answer"),
        ("peer_seconds", "peer_request_seconds", "How long other servers took to answer"),
    )

    def __init__(self, metrics: Metrics, database: DatabaseCounters) -> None:
        self._metrics = metrics
        self._database = database

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        info = GaugeMetricFamily("reileta_info", "The server's version", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        for name, text in self._GAUGES:
            yield GaugeMetricFamily(f"reileta_{name}", text, value=getattr(metrics, name))
        for name, text in self._COUNTERS:
            yield CounterMetricFamily(f"reileta_{name}", text, value=getattr(metrics, name))
        for attribute, name, text in self._HISTOGRAMS:
            histogram: Histogram = getattr(metrics, attribute)
            yield HistogramMetricFamily(
                f"reileta_{name}", text, buckets=histogram.cumulative(), sum_value=histogram.sum
            )
        depth = GaugeMetricFamily(
            "reileta_mailbox_depth_messages",
            "Messages that wait in the fullest mailbox of a kind of actor",
            labels=["kind"],
        )
        for kind, messages in metrics.mailbox_depths().items():
            depth.add_metric([kind], messages)
        yield depth
        yield CounterMetricFamily(
            "reileta_log_dropped", "Log lines that nobody read", value=metrics.log_dropped()
        )
        yield from self._background()
        yield from self._upgrades()
        ended = CounterMetricFamily(
            "reileta_links_ended", "Links of instance nodes that ended", labels=["reason"]
        )
        for reason, count in metrics.links_ended.items():
            ended.add_metric([reason], count)
        yield ended
        yield from self._http()
        yield from self._peers()
        yield from self._cluster()
        yield from self._store()

    def _background(self) -> Iterator[Metric]:
        crashes = CounterMetricFamily(
            "reileta_background_crashes", "Crashes of background tasks", labels=["task"]
        )
        failing = GaugeMetricFamily(
            "reileta_background_failing",
            "Whether a background task crashed and has not worked since",
            labels=["task"],
        )
        for name, task in self._metrics.background().items():
            crashes.add_metric([name], task.crashes)
            failing.add_metric([name], task.failing)
        yield crashes
        yield failing

    def _upgrades(self) -> Iterator[Metric]:
        refused = CounterMetricFamily(
            "reileta_upgrades_refused", "Upgrades to WebSocket refused", labels=["status"]
        )
        for status, count in self._metrics.upgrades_refused.items():
            refused.add_metric([str(status)], count)
        yield refused

    def _http(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "reileta_http_requests", "HTTP requests answered", labels=["method", "route", "status"]
        )
        for key, count in self._metrics.http_requests.items():
            requests.add_metric([key.method, key.route, str(key.status)], count)
        yield requests
        seconds = HistogramMetricFamily(
            "reileta_http_request_seconds",
            "How long HTTP requests took to answer",
            labels=["method", "route"],
        )
        for labels, histogram in self._metrics.http_seconds.items():
            seconds.add_metric(list(labels), histogram.cumulative(), histogram.sum)
        yield seconds

    def _peers(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "reileta_peer_requests", "Requests to other servers", labels=["outcome"]
        )
        for outcome, count in self._metrics.peer_requests.items():
            requests.add_metric([outcome], count)
        yield requests
        challenges = CounterMetricFamily(
            "reileta_challenges", "Challenges of other servers", labels=["outcome"]
        )
        for outcome, count in self._metrics.challenges.items():
            challenges.add_metric([outcome], count)
        yield challenges
        servers = GaugeMetricFamily(
            "reileta_peer_servers", "Other servers that are known", labels=["state"]
        )
        for state, count in self._metrics.peer_servers.items():
            servers.add_metric([state], count)
        yield servers
        reads = CounterMetricFamily(
            "reileta_remote_reads", "Reads of other servers' objects", labels=["outcome"]
        )
        for outcome, count in self._metrics.remote_reads.items():
            reads.add_metric([outcome], count)
        yield reads

    def _cluster(self) -> Iterator[Metric]:
        figures = self._metrics.cluster()
        yield GaugeMetricFamily(
            "reileta_lease_valid_seconds",
            "For how long this node may host without a further confirmation; negative: not now",
            value=figures.valid_for_s,
        )
        yield GaugeMetricFamily(
            "reileta_cluster_nodes", "Nodes of the cluster, with this one", value=figures.nodes
        )
        renewals = CounterMetricFamily(
            "reileta_lease_renewals", "Renewals that a witness answered", labels=["witness"]
        )
        failures = CounterMetricFamily(
            "reileta_lease_failures", "Renewals that a witness did not answer", labels=["witness"]
        )
        seconds = GaugeMetricFamily(
            "reileta_lease_renewal_seconds", "How long the last renewal took", labels=["witness"]
        )
        for family, values in (
            (renewals, figures.renewals),
            (failures, figures.failures),
            (seconds, figures.renewal_s),
        ):
            for witness, value in values.items():
                family.add_metric([witness], value)
            yield family
        for name, text, count in (
            ("node_falls", "How often this process was taken over, or yielded", figures.falls),
            ("node_takeovers", "Nodes that this one has taken over", figures.takeovers),
            ("places_claimed", "Instances that this node began to host", figures.claimed),
            ("places_given_back", "Instances that this node gave back", figures.given_back),
            ("fenced_writes", "Writes refused because of another host", figures.fenced),
        ):
            yield CounterMetricFamily(f"reileta_{name}", text, value=count)

    def _store(self) -> Iterator[Metric]:
        database = self._database
        name = "reileta_database"
        yield GaugeMetricFamily(
            f"{name}_available", "Whether the database can be reached", value=database.available
        )
        yield CounterMetricFamily(
            f"{name}_statements", "SQL statements run", value=database.statements
        )
        yield CounterMetricFamily(
            f"{name}_errors", "SQL statements that failed", value=database.errors
        )
        yield CounterMetricFamily(
            f"{name}_seconds", "Seconds spent in SQL statements", value=database.seconds
        )


class Exposition:
    """The content of `/metrics`: the server's counters, and the process's memory, CPU and files."""

    def __init__(self, metrics: Metrics, database: DatabaseCounters) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(MetricsCollector(metrics, database))
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """The metrics in the text format of Prometheus (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)
