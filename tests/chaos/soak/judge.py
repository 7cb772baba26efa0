"""The samples of a soak, and what they must be. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

MIB: Final = 1024 * 1024

MEMORY_SHARE: Final = 0.10
MEMORY_BYTES: Final = 16 * MIB
"""What the resident memory may grow by: that share of the warm baseline, but at least so much."""
OBJECTS_SHARE: Final = 0.05
OBJECTS: Final = 2_000
"""The same, for the number of Python objects in a quiet moment."""
THREADS: Final = 4
"""Worker threads that may have been started since; they end when they are idle for 10 s."""


@dataclass(frozen=True)
class Sample:
    """One look at the server. Times in seconds since the start."""

    at_s: float
    resident_bytes: int
    descriptors: int
    threads: int
    database_connections: int
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Quiet:
    """The server without visitors, after it has forgotten them. `classes`: objects by class."""

    sample: Sample
    tables: Mapping[str, int]
    classes: Mapping[str, int]
    rows: Mapping[str, int]
    memory: Mapping[str, int] = field(default_factory=dict)
    """What the allocators hold; empty without glibc."""


def growth(samples: Sequence[Sample]) -> float:
    """Bytes by which the resident memory grew from the first sample to the last, by the line of
    least squares."""
    if len(samples) < 2:
        return 0.0
    mean_t = sum(one.at_s for one in samples) / len(samples)
    mean_m = sum(one.resident_bytes for one in samples) / len(samples)
    spread = sum((one.at_s - mean_t) ** 2 for one in samples)
    both = sum((one.at_s - mean_t) * (one.resident_bytes - mean_m) for one in samples)
    return both / spread * (samples[-1].at_s - samples[0].at_s) if spread else 0.0


def judge(
    loaded: Sequence[Sample], before: Quiet, after: Quiet, *, spare: float = 1.0
) -> list[str]:
    """What is not flat: a sentence for each. `before` is the warm baseline; memory and objects may
    grow `spare` times what is allowed above."""
    wrong = []
    base = before.sample.resident_bytes
    most = spare * max(MEMORY_BYTES, MEMORY_SHARE * base)
    second = loaded[len(loaded) // 2 :]
    if (grown := growth(second)) > most:
        wrong.append(f"memory grew by {grown / MIB:.1f} MiB in the second half")
    if (more := after.sample.resident_bytes - base) > most:
        wrong.append(f"memory is {more / MIB:.1f} MiB above the warm baseline")
    many = sum(before.classes.values())
    more_objects = sum(after.classes.values()) - many
    if more_objects > spare * max(OBJECTS, OBJECTS_SHARE * many):
        wrong.append(f"{more_objects} objects more than at the baseline: {top(before, after)}")
    for name in ("tasks", "descriptors", "threads"):
        old, new = _figure(before.sample, name), _figure(after.sample, name)
        connections = after.sample.database_connections - before.sample.database_connections
        # The pool opens connections as they are needed; each has a task and a descriptor.
        if new > old + (max(0, connections) if name != "threads" else THREADS):
            wrong.append(f"{new} {name}, {old} at the baseline")
    wrong += [
        f"{count} {name} are left"
        for name, count in after.sample.counts.items()
        if count and name in before.sample.counts and name not in ("tasks", *_MAY_STAY)
    ]
    return wrong


_MAY_STAY: Final = ("http connections", "places")
"""The observer's own."""


def top(before: Quiet, after: Quiet, most: int = 8) -> str:
    """The classes of which there are most objects more than before."""
    grown = {name: count - before.classes.get(name, 0) for name, count in after.classes.items()}
    names = sorted(grown, key=lambda name: -grown[name])[:most]
    return ", ".join(f"{name} +{grown[name]}" for name in names if grown[name] > 0)


def grown_tables(before: Quiet, after: Quiet, least: int = 20) -> list[str]:
    """The containers of our own classes that have grown, for a person to judge."""
    return [
        f"{name}: {before.tables.get(name, 0)} -> {size}"
        for name, size in sorted(after.tables.items(), key=lambda item: -item[1])
        if size - before.tables.get(name, 0) >= least
    ]


def _figure(sample: Sample, name: str) -> int:
    figures = {
        "tasks": sample.counts["tasks"],
        "descriptors": sample.descriptors,
        "threads": sample.threads,
    }
    return figures[name]


def percentile(values: Sequence[float], share: float) -> float:
    """The value at that share of the sorted values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
