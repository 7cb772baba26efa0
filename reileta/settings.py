"""Every setting, with its default and unit: the one source of the options of `reileta serve`.

Each is an option `--name` of the command line, and a variable `REILETA_NAME` of the environment.
The command line wins over the environment, which wins over the defaults. A setting's docstring is
its help text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from reileta.ids import is_server_address

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class Settings(BaseSettings):
    """How one server process is to run."""

    model_config = SettingsConfigDict(
        env_prefix="REILETA_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    # Where it listens, and what it calls itself
    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` for all of IPv4, `::` for all."""
    port: int = Field(default=3032, ge=0, le=65535)
    """The port to listen on; 0 lets the system choose one."""
    address: str | None = None
    """The `ServerAt` that clients know this server by; without it, its host and port."""
    tls_cert: Path | None = None
    """The certificate chain, PEM; with it, the port speaks TLS."""
    tls_key: Path | None = None
    """The private key of the certificate, PEM, without a passphrase."""

    # Where things are kept
    data: Path = Path("data")
    """The data folder: the embedded database, keys, files."""
    database: str | None = None
    """`postgresql://…`; without it, an embedded PostgreSQL in the data folder."""
    database_connections: int = Field(default=8, ge=1, le=200)
    """Connections to the database that are kept at once."""
    read_cache: Literal["auto", "on", "off"] = "auto"
    """Whether rows are remembered until they change; `auto`: unless there is a `--database`, which
    other servers could write to."""

    # What it says
    log_format: Literal["console", "json"] = "console"
    """Lines for people, or JSON for machines."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged."""
    trace_sample: float = Field(default=0.0, ge=0, le=1)
    """The share of traces whose every message is logged, whatever the level."""
    record: Path | None = None
    """A folder in which each instance's mailbox is recorded, for `reileta replay`."""
    record_limit_bytes: int = Field(default=1024 * MIB, ge=1 * MIB)
    """What the recordings in that folder may come to; over it, recording stops."""
    title: str = "Reileta"
    """What the server is called until an admin names it."""

    # Accounts
    registration: Literal["open", "closed"] = "open"
    """Whether anyone can make an account."""
    login_lifetime_s: int = Field(default=7 * 24 * 3600, ge=1)
    """How long a token of R's face lives."""
    access_lifetime_s: int = Field(default=15 * 60, ge=1)
    """How long an access key of the session API lives."""
    refresh_lifetime_s: int = Field(default=60 * 60, ge=1)
    """How long a refresh key of the session API lives."""
    tokens_per_user: int = Field(default=32, ge=1)
    """Live tokens of one user; over it, the oldest goes."""
    sessions_per_user: int = Field(default=64, ge=1)
    """Live sessions of one user; over it, the one that was idle longest ends."""

    # Limits
    rate_limits: Literal["on", "off"] = "on"
    """`off` lifts the limits of HTTP, of messages a second and of seats per user, never those of
    size."""
    body_limit_bytes: int = Field(default=64 * KIB, ge=1 * KIB)
    """How large a JSON body over HTTP may be."""
    file_limit_bytes: int = Field(default=512 * MIB, ge=1 * MIB)
    """How large a world asset's file may be."""
    user_files_bytes: int = Field(default=10 * GIB, ge=0)
    """What the files of all worlds of one user may come to."""
    follows_per_user: int = Field(default=5_000, ge=1)
    """How many others one user may follow."""
    worlds_per_user: int = Field(default=500, ge=0)
    """How many worlds one user may own."""
    assets_per_world: int = Field(default=100, ge=1)
    """How many assets one world may have."""
    services_per_user: int = Field(default=100, ge=0)
    """How many services one user may own."""
    instances_per_user: int = Field(default=100, ge=0)
    """How many instances of one user may exist at once."""
    documents_per_user: int = Field(default=1_000, ge=0)
    """How many documents (and resources of a host's own types) one user may own."""
    user_documents_bytes: int = Field(default=16 * MIB, ge=0)
    """What the documents of one user may come to."""
    seats_per_user: int = Field(default=4, ge=0)
    """Seats that the sessions of one user may have in one instance; 0, or `--rate-limits off`,
    lifts the limit."""
    shares_per_resource: int = Field(default=500, ge=0)
    """With how many users one resource may be shared."""
    moderations_per_user: int = Field(default=10_000, ge=1)
    """Entries in the log of moderation for the instances of one owner; over it, the oldest goes."""
    message_limit_bytes: int = Field(default=64 * KIB, ge=1 * KIB)
    """How large a message on a WebSocket may be."""
    messages_per_s: float = Field(default=120, gt=0)
    """Messages a second that one WebSocket may send, in the long run; one over 1 KiB counts once
    for each KiB that it begins."""
    messages_burst: int = Field(default=240, ge=1)
    """Messages that one WebSocket may send at once."""
    backlog_limit_bytes: int = Field(default=1 * MIB, ge=64 * KIB)
    """What may wait for one WebSocket that can't keep up; over it, close code 4008. At half of it,
    the users who fill it are held back."""
    connections: int = Field(default=10_000, ge=1)
    """Open connections at once; further ones are refused with 503 or 1013."""
    connections_per_address: int = Field(default=256, ge=0)
    """Open connections of one address (a /64 of IPv6); further ones are refused with 429. 0, or
    `--rate-limits off`, lifts the limit: do so if a proxy stands in front."""
    http_idle_s: float = Field(default=75, gt=0)
    """How long an HTTP connection may be idle before it is closed."""
    http2: bool = True
    """HTTP/2 for clients that offer it: over TLS, and over plain TCP with prior knowledge."""
    deflate: bool = False
    """permessage-deflate, for clients that offer it."""

    # Times of a WebSocket
    credential_deadline_s: float = Field(default=10, gt=0)
    """How long a WebSocket may stay without a credential; then close code 4001."""
    keepalive_interval_s: float = Field(default=20, gt=0)
    """How often a WebSocket is pinged."""
    keepalive_timeout_s: float = Field(default=20, gt=0)
    """How long a WebSocket may take to answer a ping."""

    # Sessions
    away_s: float = Field(default=60, gt=0)
    """How long a session without a WebSocket keeps the resource that it has."""
    ack_timeout_ms: int = Field(default=10_000, ge=100)
    """How long a client of the session API may take to acknowledge an event, in milliseconds."""

    # Instances
    seat_grace_s: float = Field(default=10, ge=0)
    """How long the seat of a player is kept whose socket was lost."""
    hold_s: float = Field(default=30, gt=0)
    """How long a seat is held for an admitted candidate."""
    queue_grace_s: float = Field(default=60, ge=0)
    """How long a place in the queue is kept whose socket was lost."""
    empty_instance_s: float = Field(default=60, ge=0)
    """How long an instance that is not permanent may stand empty."""
    retained_keys_per_player: int = Field(default=64, ge=1)
    """Keyed values that an instance keeps for one player."""
    retained_bytes_per_player: int = Field(default=64 * KIB, ge=1 * KIB)
    """How large the kept values of one player, with their keys, may be together."""
    candidates_per_instance: int = Field(default=4_096, ge=1)
    """Users that may wait in the queue of one instance, those who are invited or admitted
    included; a further request is refused (122)."""
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

    @field_validator("database")
    @classmethod
    def _database_is_postgresql(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together")
        return self

    @property
    def remembers_reads(self) -> bool:
        """Whether rows that were read are remembered (`store/reads.py`)."""
        if self.read_cache == "auto":
            return self.database is None
        return self.read_cache == "on"

    @property
    def secure(self) -> bool:
        return self.tls_cert is not None
