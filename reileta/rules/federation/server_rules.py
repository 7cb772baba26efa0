"""Rules about other servers: which of them this server deals with. Pure.

A rule's pattern is a host without a port, in its canonical spelling. It holds for that host at any
port, and for all hosts below it: `evil.example` covers `a.evil.example:8443`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from reileta.rules.federation.addresses import host_of, is_ip_literal
from reileta.rules.timed_rule import TimedRule

RuleKind: TypeAlias = Literal["allow", "block", "silence"]
Decision: TypeAlias = Literal["allow", "silence", "block"]
Mode: TypeAlias = Literal["open", "allowlist", "off"]

RULES_LIMIT: Final = 10_000
"""Rules that a server has at most."""


@dataclass(frozen=True, slots=True)
class Rule(TimedRule):
    """A rule of an admin about a host and all hosts below it.

    `by` is the id of the admin, or the name of the system's account that ran a command.
    """

    pattern: str
    kind: RuleKind
    by: str
    created_at: int
    reason: str | None = None
    until: int | None = None


class RuleBook:
    """All rules of a server. Its size does not matter to `decide`."""

    def __init__(self, rules: Iterable[Rule] = (), mode: Mode = "open") -> None:
        self._rules: Mapping[str, Rule] = {rule.pattern: rule for rule in rules}
        self._mode = mode

    def __len__(self) -> int:
        return len(self._rules)

    def decide(self, address: str, now_ms: int) -> Decision:
        """What may be done with a server, by its canonical address.

        `block`: nothing. `silence`: it can read and be read, but its users can't come, and it is
        not in lists. `allow`: everything.

        A block wins over all other rules, also one of a parent domain. Of the others the nearest
        rule wins: that of the host itself, else that of the nearest parent. Without a rule the mode
        decides. In the mode `allowlist`, a server needs a rule that allows it or a parent.
        """
        if self._mode == "off":
            return "block"
        rules = [rule for rule in self._covering(address) if rule.holds(now_ms)]
        if any(rule.kind == "block" for rule in rules):
            return "block"
        if self._mode == "allowlist" and not any(rule.kind == "allow" for rule in rules):
            return "block"
        return "silence" if rules and rules[0].kind == "silence" else "allow"

    def ended_between(self, since_ms: int, now_ms: int) -> bool:
        """Whether the time of a rule was over in that time."""
        return any(
            rule.until is not None and since_ms < rule.until <= now_ms
            for rule in self._rules.values()
        )

    def _covering(self, address: str) -> Iterator[Rule]:
        """The rules that cover an address, the nearest first."""
        for host in _hosts(address):
            rule = self._rules.get(host)
            if rule is not None:
                yield rule


def decide(address: str, rules: Iterable[Rule], mode: Mode, now_ms: int) -> Decision:
    """`RuleBook.decide` for a few rules."""
    return RuleBook(rules, mode).decide(address, now_ms)


def _hosts(address: str) -> Iterator[str]:
    """The host of an address, and its parent domains from the nearest to the farthest."""
    host = host_of(address)
    yield host
    if is_ip_literal(address):
        return
    while "." in host:
        host = host.partition(".")[2]
        yield host
