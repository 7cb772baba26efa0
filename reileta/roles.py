"""The roles of a server process: registry, gateway, live instances. Pure.

| role | what the process does |
|---|---|
| `eta` | the registry: users, worlds, assets and files, services, records of instances |
| `reil` | the gateway: authentication, sessions, WebSockets, other servers; passes on to `eta` |
| `ins` | hosts live instances |

One process has all of them, unless `--role` says something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Role: TypeAlias = Literal["eta", "reil", "ins"]
ROLES: Final[tuple[Role, ...]] = ("eta", "ins", "reil")
ALL: Final = "all"
ETAS_LIMIT: Final = 64
_URL: Final = re.compile(
    r"(https?)://([A-Za-z0-9_][A-Za-z0-9_.-]{0,253}|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::([0-9]{1,5}))?/?"
)


@dataclass(frozen=True, slots=True)
class EtaUrl:
    """Where a gateway reaches a registry. `host` is without brackets."""

    secure: bool
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.secure else ''}://{host}:{self.port}"


def roles_of(text: str) -> frozenset[Role]:
    """The roles in a list with commas; `all` stands for all of them.

    Raises ValueError, with a message for the operator.
    """
    names = [name.strip() for name in text.split(",")]
    if names == [ALL]:
        return frozenset(ROLES)
    found = frozenset(role for role in ROLES if role in names)
    if len(found) != len(names):
        raise ValueError("must be all, or some of eta, reil and ins, separated by commas")
    return found


def etas_of(text: str) -> tuple[EtaUrl, ...]:
    """The URLs of registries in a list with commas.

    Raises ValueError, with a message for the operator.
    """
    found = []
    for entry in map(str.strip, text.split(",")):
        match = _URL.fullmatch(entry)
        port = int(match[3] or (443 if match[1] == "https" else 80)) if match else 0
        if match is None or not 0 < port < 65536:
            raise ValueError("must be URLs such as http://10.0.0.7:3032, separated by commas")
        found.append(EtaUrl(match[1] == "https", match[2].strip("[]"), port))
    if len(set(found)) < len(found) or len(found) > ETAS_LIMIT:
        raise ValueError(f"must name each registry once, and at most {ETAS_LIMIT}")
    return tuple(found)
