"""Rules of admins that may end by themselves. Pure."""

from __future__ import annotations


class TimedRule:
    """A rule that holds until `until` (ms); None: until it is deleted. Which clients or servers it
    concerns, and how rules are combined, differs by kind; this does not."""

    __slots__ = ()

    until: int | None

    def holds(self, now_ms: int) -> bool:
        """Whether the rule's time is not over."""
        return self.until is None or now_ms < self.until
