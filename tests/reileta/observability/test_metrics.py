"""The counters, and what Prometheus is told of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from reileta import __version__
from reileta.observability.metrics import Exposition, Histogram, Metrics
from tests.test_house import ROOT


@dataclass
class FakeDatabase:
    statements: int = 5
    errors: int = 1
    seconds: float = 0.25
    available: bool = True


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = Exposition(metrics, FakeDatabase()).render().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_histogram_counts_into_buckets() -> None:
    histogram = Histogram((1, 2, 5))
    for value in (0, 1, 1.5, 5, 6):
        histogram.observe(value)
    assert histogram.counts == [2, 1, 1, 1]
    assert (histogram.count, histogram.sum) == (5, 13.5)
    assert histogram.cumulative() == [("1.0", 2), ("2.0", 3), ("5.0", 4), ("+Inf", 5)]


def test_every_plain_counter_is_shown() -> None:
    metrics = Metrics()
    plain = [name for name, value in vars(metrics).items() if isinstance(value, int)]
    for number, name in enumerate(plain, 1):
        setattr(metrics, name, number)
    shown = {name: value for (name, labels), value in samples(metrics).items() if not labels}
    for number, name in enumerate(plain, 1):
        total = f"reileta_{name.removesuffix('_total')}_total"
        assert number in (shown.get(f"reileta_{name}"), shown.get(total)), name


def test_histograms_are_shown() -> None:
    metrics = Metrics()
    metrics.drain_size.observe(3)
    metrics.mailbox_wait.observe(0.002)
    shown = samples(metrics)
    assert shown["reileta_drain_messages_bucket", (("le", "4.0"),)] == 1
    assert shown["reileta_drain_messages_bucket", (("le", "2.0"),)] == 0
    assert shown["reileta_mailbox_wait_seconds_sum", ()] == 0.002


def test_the_depth_of_mailboxes_is_that_of_the_moment_somebody_asks() -> None:
    metrics, depths = Metrics(), {"hub": 3}
    metrics.mailbox_depths = lambda: depths
    assert samples(metrics)["reileta_mailbox_depth_messages", (("kind", "hub"),)] == 3
    depths["hub"] = 0
    assert samples(metrics)["reileta_mailbox_depth_messages", (("kind", "hub"),)] == 0


def test_http_is_counted_by_route_and_status() -> None:
    metrics = Metrics()
    metrics.http("GET", "/api/time", 200, 0.001)
    metrics.http("GET", "/api/time", 200, 0.003)
    metrics.http("GET", "/api/time", 429, 0.0001)
    shown = samples(metrics)
    labels = (("method", "GET"), ("route", "/api/time"))
    assert shown["reileta_http_requests_total", (*labels, ("status", "200"))] == 2
    assert shown["reileta_http_requests_total", (*labels, ("status", "429"))] == 1
    assert shown["reileta_http_request_seconds_count", labels] == 3


def test_the_database_and_the_process_are_shown() -> None:
    shown = samples(Metrics())
    assert shown["reileta_database_statements_total", ()] == 5
    assert shown["reileta_database_errors_total", ()] == 1
    assert shown["reileta_database_seconds_total", ()] == 0.25
    assert shown["reileta_database_available", ()] == 1
    assert shown["reileta_info", (("version", __version__),)] == 1
    assert shown["process_resident_memory_bytes", ()] > 0


def test_the_docs_list_the_metrics_that_are_exported() -> None:
    text = Exposition(Metrics(), FakeDatabase()).render().decode()
    exported = set(re.findall(r"^# TYPE (reileta_\w+)", text, re.MULTILINE))
    named = set(re.findall(r"reileta_\w+", (ROOT / "docs/operating.md").read_text()))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} == exported
