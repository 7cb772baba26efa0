"""The history of a contest: what was acknowledged, and the checks on it."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Hold:
    """A session held a resource, at least from `since` to `until` (seconds of one clock).

    `since` is when it knew that it had acquired it; `until` is when it sent its last request that
    was granted to it as the holder.
    """

    number: int
    session: int
    resource: int
    since: float
    until: float


@dataclass
class Wait:
    """A session waited for a resource, and its socket lived while it did.

    Attributes:
        life: which start of the server it was.
        asked: when it asked to wait; `joined`: when the answer came (seconds of one clock).
        fresh: whether it was not in the line before it asked.
        offered_until: of the offer that it got, a time of the server in ISO 8601; None: none.
    """

    session: int
    resource: int
    life: int
    asked: float
    joined: float
    fresh: bool
    offered_until: str | None = None


@dataclass
class History:
    """What was acknowledged.

    Attributes:
        holds: all holds, also those that the end of the contest cut short.
        steps: for each resource, which hold was granted what at which version: an acquisition, or a
            write that made that version.
        writes: by session and resource, the last write that was acknowledged.
        patches: by session, the last patch of its state that was acknowledged.
        refused: how many writes of sessions that were declared gone were refused.
        shown: by resource, the newest version that a watcher saw.
        offers_taken: how many sessions that waited got their resource by an offer.
        waits: the waits that ended with an offer.
        violations: descriptions of violated invariants, from contestants and from `check`.
    """

    holds: list[Hold] = field(default_factory=list)
    steps: dict[int, list[tuple[int, bool, int]]] = field(default_factory=lambda: defaultdict(list))
    writes: dict[tuple[int, int], int] = field(default_factory=dict)
    patches: dict[int, int] = field(default_factory=dict)
    refused: int = 0
    shown: dict[int, int] = field(default_factory=dict)
    offers_taken: int = 0
    waits: list[Wait] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def acquired(self, resource: int, version: int, hold: int) -> None:
        """An acquisition of a resource that was at that version."""
        self.steps[resource].append((version, True, hold))

    def wrote(self, resource: int, version: int, hold: int) -> None:
        """A write that made that version."""
        self.steps[resource].append((version, False, hold))

    @property
    def written(self) -> int:
        """How many writes were acknowledged."""
        return sum(not acquired for steps in self.steps.values() for _, acquired, _ in steps)

    def check(self) -> None:
        """Adds a violation for each pair of acknowledgements that cannot both be true."""
        self._check_holds()
        self._check_order()
        for resource, steps in self.steps.items():
            self._check_steps(resource, sorted(steps))

    def _check_holds(self) -> None:
        """By the clock: a resource never has two holders, a session never two resources."""
        by_resource: dict[int, list[Hold]] = defaultdict(list)
        by_session: dict[int, list[Hold]] = defaultdict(list)
        for one in self.holds:
            by_resource[one.resource].append(one)
            by_session[one.session].append(one)
        for what, groups in (("holders", by_resource), ("resources", by_session)):
            for holds in groups.values():
                holds.sort(key=lambda one: one.since)
                for before, after in itertools.pairwise(holds):
                    if after.since < before.until:
                        self.violations.append(f"two {what}: {before} and {after}")

    def _check_order(self) -> None:
        """First come, first served: of two sessions that waited for a resource, the one that had
        joined the line before the other asked got its offer first. The line is in the server's
        memory, so it begins anew with each life of the server."""
        lines: dict[tuple[int, int], list[Wait]] = defaultdict(list)
        for one in self.waits:
            if one.offered_until is not None:
                lines[one.resource, one.life].append(one)
        for line in lines.values():
            for first, second in itertools.permutations(line, 2):
                ahead = second.fresh and first.joined < second.asked
                if ahead and (first.offered_until or "") > (second.offered_until or ""):
                    self.violations.append(f"out of turn: {second} before {first}")

    def _check_steps(self, resource: int, steps: list[tuple[int, bool, int]]) -> None:
        """By the versions: none was made twice, and once another had it, whoever had it before
        wrote nothing more. (An acquisition at a version comes after the write that made it.)"""
        written = [version for version, acquired, _ in steps if not acquired]
        if len(written) != len(set(written)):
            self.violations.append(f"resource {resource} had a version twice")
        over: set[int] = set()
        last: int | None = None
        for version, _, hold in sorted(steps, key=lambda step: (step[0], step[1])):
            if hold == last:
                continue
            if hold in over:
                self.violations.append(f"hold {hold} of {resource} went on at version {version}")
            if last is not None:
                over.add(last)
            last = hold
