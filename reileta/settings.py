"""Every setting, with its default and unit. Each is an option `REILETA_…` of the environment too.

Command-line options win over the environment, which wins over the defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from reileta.ids import is_server_address

KIB = 1024
MIB = 1024 * KIB


class Settings(BaseSettings):
    """How one server process is to run."""

    model_config = SettingsConfigDict(env_prefix="REILETA_", extra="forbid", frozen=True)

    # Where it listens, and what it calls itself
    host: str = "127.0.0.1"
    port: int = Field(default=3032, ge=0, le=65535)
    """0 lets the system choose a port."""
    address: str | None = None
    """The `ServerAt` that clients know this server by; None: the host and port it listens on."""
    tls_cert: Path | None = None
    tls_key: Path | None = None

    # Where things are kept
    data: Path = Path("data")
    """The data folder: the embedded database, keys, files."""
    database: str | None = None
    """`postgresql://…`; None: an embedded PostgreSQL in the data folder."""
    database_connections: int = Field(default=8, ge=1, le=200)

    # What it says
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    trace_sample: float = Field(default=0.0, ge=0, le=1)
    """The share of traces whose every message is logged, whatever the level."""
    title: str = "Reileta"

    # Accounts
    registration: Literal["open", "closed"] = "open"
    login_lifetime_s: int = Field(default=7 * 24 * 3600, ge=1)
    """How long a token of R's face lives."""
    access_lifetime_s: int = Field(default=15 * 60, ge=1)
    refresh_lifetime_s: int = Field(default=60 * 60, ge=1)
    tokens_per_user: int = Field(default=32, ge=1)

    # Limits
    rate_limits: Literal["on", "off"] = "on"
    """`off` lifts the limits of HTTP and of messages a second alike, never those of size."""
    body_limit_bytes: int = Field(default=64 * KIB, ge=1 * KIB)
    """A JSON body over HTTP."""
    message_limit_bytes: int = Field(default=64 * KIB, ge=1 * KIB)
    """A message on a WebSocket."""
    messages_per_s: float = Field(default=120, gt=0)
    messages_burst: int = Field(default=240, ge=1)
    backlog_limit_bytes: int = Field(default=1 * MIB, ge=64 * KIB)
    """What may wait for one WebSocket that can't keep up; over it, close code 4008."""
    connections: int = Field(default=10_000, ge=1)
    """Open connections at once; further ones are refused with 503 or 1013."""
    deflate: bool = False
    """permessage-deflate, for clients that offer it."""

    # Times of a WebSocket
    credential_deadline_s: float = Field(default=10, gt=0)
    keepalive_interval_s: float = Field(default=20, gt=0)
    keepalive_timeout_s: float = Field(default=20, gt=0)

    # Instances
    seat_grace_s: float = Field(default=10, ge=0)
    hold_s: float = Field(default=30, gt=0)
    queue_grace_s: float = Field(default=60, ge=0)
    empty_instance_s: float = Field(default=60, ge=0)
    mailbox_limit: int = Field(default=65_536, ge=16)
    """Messages that may wait for one instance before data is refused (122)."""

    # Stopping
    shutdown_s: float = Field(default=8, gt=0)
    """How long the server gives itself to stop in order."""

    @field_validator("address")
    @classmethod
    def _address_is_a_server(cls, value: str | None) -> str | None:
        if value is not None and not is_server_address(value):
            raise ValueError("must be host or host:port, in lower case")
        return value

    @property
    def secure(self) -> bool:
        return self.tls_cert is not None
