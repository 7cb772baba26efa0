"""Rules about clients: which of them this server refuses. Pure.

| kind | pattern | refuses |
|---|---|---|
| `network` | `192.0.2.0/24`, `2001:db8::/48`, `192.0.2.7` | clients with an address there |
| `agent` | `BadBot*`: `*` is any text, case does not matter | clients with that `User-Agent` |
| `account` | `u_…`, or `u_…@b.example.org` for a guest | requests and WebSockets of that user |

`RuleBook` is made once for each change of the rules. A request costs one lookup for each length of
a prefix that some rule has, and one for its `User-Agent`, whose matches are cached.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from reileta.ids import is_user_ref, user_ref
from reileta.rules.timed_rule import TimedRule

ClientRuleKind: TypeAlias = Literal["network", "agent", "account"]

RULES_LIMIT: Final = 10_000
"""Rules that a server has at most."""
AGENT_RULES_LIMIT: Final = 200
"""Of these, rules about user agents: each costs time for each new `User-Agent`."""
AGENT_LENGTH: Final = 512
"""Characters of a `User-Agent` that count."""
PATTERN_LENGTH: Final = 300
STARS_LIMIT: Final = 8
_CACHED: Final = 4096
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class ClientRule(TimedRule):
    """A rule of an admin. `pattern` is in its canonical spelling.

    `by` is the id of the admin, or the name of the system's account that ran a command.
    """

    kind: ClientRuleKind
    pattern: str
    by: str
    created_at: int
    reason: str | None = None
    until: int | None = None


def canonical_pattern(kind: ClientRuleKind, text: str, own_address: str = "") -> str:
    """The canonical spelling of a rule's pattern.

    Raises ValueError, with a message about `pattern`.
    """
    text = text.strip()
    if not text or len(text) > PATTERN_LENGTH:
        raise ValueError(f"must have 1 to {PATTERN_LENGTH} characters")
    match kind:
        case "network":
            return _network_pattern(text)
        case "agent":
            if not text.isprintable():
                raise ValueError("must be printable")
            if not text.strip("*") or text.count("*") > STARS_LIMIT:
                raise ValueError(f"must have more than stars, and at most {STARS_LIMIT} of them")
            return text.lower()
        case "account":
            return _account_pattern(text, own_address)


def _network_pattern(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            whole = ipaddress.ip_network(text, strict=False)
            raise ValueError(f"must be an address or a network: {text} is in {whole}") from None
        raise ValueError(
            "must be an address or a network, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/48"
        ) from None
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            network = ipaddress.ip_network((mapped, network.prefixlen - 96))
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.scope_id:
        raise ValueError("must not have a zone")
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if single else str(network)


def _account_pattern(text: str, own_address: str) -> str:
    user = user_ref(text, own_address)
    if not is_user_ref(user):
        raise ValueError("must be the id of a user: u_…, or u_…@SERVER for a guest")
    return user


class ClientRuleBook:
    """All rules of a server, prepared for many questions.

    `own_address`: the server's, which a rule about one of its users may name.
    """

    def __init__(self, rules: Iterable[ClientRule] = (), own_address: str = "") -> None:
        self._rules = tuple(rules)
        self._networks: dict[tuple[int, int], dict[int, ClientRule]] = {}
        self._agents: list[ClientRule] = []
        self._accounts: dict[str, ClientRule] = {}
        for rule in self._rules:
            match rule.kind:
                case "network":
                    network = ipaddress.ip_network(rule.pattern)
                    key = (network.version, network.prefixlen)
                    of_length = self._networks.setdefault(key, {})
                    of_length[int(network.network_address) >> _shift(network)] = rule
                case "agent":
                    self._agents.append(rule)
                case "account":
                    self._accounts[user_ref(rule.pattern, own_address)] = rule
        self._of_agent = lru_cache(maxsize=_CACHED)(self._matching)
        self._addresses = lru_cache(maxsize=_CACHED)(_number)

    def __len__(self) -> int:
        return len(self._rules)

    @property
    def about_accounts(self) -> bool:
        """Whether there is a rule about an account."""
        return bool(self._accounts)

    def of_client(self, address: str, agent: str, now_ms: int) -> ClientRule | None:
        """A rule that refuses a client with that IP address and `User-Agent`."""
        if self._networks:
            known = self._addresses(address)
            if known is not None:
                version, number = known
                bits = 32 if version == 4 else 128
                for (of_version, length), rules in self._networks.items():
                    if of_version == version:
                        rule = rules.get(number >> (bits - length))
                        if rule is not None and rule.holds(now_ms):
                            return rule
        if self._agents and agent:
            for rule in self._of_agent(agent[:AGENT_LENGTH]):
                if rule.holds(now_ms):
                    return rule
        return None

    def of_account(self, user: str, now_ms: int) -> ClientRule | None:
        """A rule that refuses a user: a bare id, or `u_…@SERVER` for a guest."""
        rule = self._accounts.get(user)
        return rule if rule is not None and rule.holds(now_ms) else None

    def accounts(self, now_ms: int) -> frozenset[str]:
        """The users that are refused."""
        return frozenset(user for user, rule in self._accounts.items() if rule.holds(now_ms))

    def _matching(self, agent: str) -> tuple[ClientRule, ...]:
        agent = agent.lower()
        return tuple(rule for rule in self._agents if fits(rule.pattern, agent))


def fits(pattern: str, text: str) -> bool:
    """Whether the text is the pattern, where `*` stands for any text. Takes linear time for each
    star: the leftmost place for each part is always the best one."""
    first, *parts = pattern.split("*")
    if not parts:
        return text == first
    *middle, last = parts
    if not text.startswith(first):
        return False
    at = len(first)
    for part in middle:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(text) - len(last) >= at and text.endswith(last)


def _shift(network: _Network) -> int:
    return network.max_prefixlen - network.prefixlen


def _number(address: str) -> tuple[int, int] | None:
    """The version and the number of an address; None if it is not one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.version, int(parsed)
