"""Every setting with its default and unit; `reileta serve` gets its options from here.

Each setting is an option `--name` and an environment variable `REILETA_NAME`. The command line wins
over the environment, which wins over the defaults. A setting's docstring is its help text.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from reileta.protocol.input_types import Title
from reileta.roles import ROLES, EtaUrl, Role, etas_of, roles_of
from reileta.rules.federation.addresses import canonical, ip_of
from reileta.rules.federation.networks import Networks
from reileta.site import base_path_of
from reileta.trusted_proxies import TrustedProxies

GROUPS: Final = {
    "host": "Network",
    "data": "Storage",
    "log_format": "Logs",
    "title": "Server",
    "registration": "Accounts",
    "rate_limits": "Limits",
    "credential_deadline_s": "WebSocket timeouts",
    "away_s": "Sessions",
    "seat_grace_s": "Instances",
    "federation": "Other servers",
    "nats": "Cluster",
    "role": "Roles",
    "shutdown_s": "Shutdown",
}
"""The groups of the settings in help texts, by the first setting of each."""

ENV_PREFIX: Final = "REILETA_"

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class Settings(BaseSettings):
    """The settings of one server process."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    # Network
    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` for all IPv4 addresses, `::` for all addresses. Both need
    `--address`."""
    port: int = Field(default=3032, ge=0, le=65535)
    """The port to listen on; with 0 the system chooses one."""
    address: str | None = None
    """The server's public address, `host` or `host:port`; by default `--host` and `--port`."""
    tls_cert: Path | None = None
    """The TLS certificate chain (PEM). If set, the port speaks only TLS."""
    tls_key: Path | None = None
    """The private key of the certificate (PEM), without a passphrase."""
    trusted_proxies: str | None = None
    """Addresses and networks of reverse proxies, separated by commas: `127.0.0.1,fd00::/8`. Only
    from these do the headers `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` count."""
    base_path: str | None = None
    """The path that clients' URLs begin with, such as `/vr`, if the server shares its host with
    others."""

    # Storage
    data: Path = Path("data")
    """The data folder: the embedded database, the server's key, uploaded files."""
    files: Path | None = None
    """The folder of uploaded files; by default `files` in the data folder. All nodes of a cluster
    need the same one, on storage that they share."""
    key: Path | None = None
    """The file of the server's key; by default `server.key` in the data folder. Only the server's
    account may read it."""
    database: str | None = None
    """A `postgresql://` URL. By default the server runs an embedded PostgreSQL in the data
    folder."""
    database_connections: int = Field(default=8, ge=1, le=200)
    """Size of the pool of database connections."""
    read_cache: Literal["auto", "on", "off"] = "auto"
    """Cache database rows until they change. `auto`: on, unless `--database` is set, since other
    servers could then write to the same rows."""

    # Logs
    log_format: Literal["console", "json"] = "console"
    """`console`: lines for people. `json`: one JSON object per line."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged."""
    log_addresses: bool = False
    """Log the addresses of clients with refused logins, closed sockets and the like."""
    trace_sample: float = Field(default=0.0, ge=0, le=1)
    """The share of traces (0 to 1) whose messages are all logged, at any log level."""
    record: Path | None = None
    """A folder for recordings of each instance's messages, which `reileta replay` reads."""
    record_limit_bytes: int = Field(default=1024 * MIB, ge=1 * MIB)
    """Total size of the recordings in that folder. When it is reached, recording stops."""
    title: Title = "Reileta"
    """The server's name until an admin changes it."""

    # Accounts
    registration: Literal["open", "closed"] = "open"
    """`open`: anyone can create an account. `closed`: only admins can."""
    temporary_accounts: int = Field(default=0, ge=0)
    """Temporary accounts at the same time: people who look around without a password. 0: none."""
    temporary_account_s: int = Field(default=24 * 3600, ge=1)
    """Seconds after the end of its last session for which a temporary account is kept; also the
    longest lifetime of its token."""
    login_lifetime_s: int = Field(default=7 * 24 * 3600, ge=1)
    """Lifetime of a token from `/api/auth/login`, in seconds."""
    access_lifetime_s: int = Field(default=15 * 60, ge=1)
    """Lifetime of an access key of the session API, in seconds."""
    refresh_lifetime_s: int = Field(default=60 * 60, ge=1)
    """Lifetime of a refresh key of the session API, in seconds."""
    tokens_per_user: int = Field(default=32, ge=1)
    """Valid tokens per user. A new token beyond that revokes the oldest."""
    sessions_per_user: int = Field(default=64, ge=1)
    """Live sessions per user. A new session beyond that ends the one that was idle longest."""
    audit_kept_days: int = Field(default=365, ge=1)
    """Days for which the audit log keeps what admins did."""

    # Limits
    rate_limits: Literal["on", "off"] = "on"
    """`off` lifts the rate limits of HTTP and WebSockets, the limit of connections per address and
    those of seats and WebSockets per user, but no size limit."""
    body_limit_bytes: int = Field(default=64 * KIB, ge=1 * KIB)
    """Largest JSON body of an HTTP request."""
    file_limit_bytes: int = Field(default=512 * MIB, ge=1 * MIB)
    """Largest file of a world asset."""
    user_files_bytes: int = Field(default=10 * GIB, ge=0)
    """Total size of the asset files of all worlds of one user."""
    follows_per_user: int = Field(default=5_000, ge=1)
    """Users that one user can follow."""
    worlds_per_user: int = Field(default=500, ge=0)
    """Worlds that one user can own."""
    assets_per_world: int = Field(default=100, ge=1)
    """Assets per world."""
    services_per_user: int = Field(default=100, ge=0)
    """Services that one user can own."""
    instances_per_user: int = Field(default=100, ge=0)
    """Instances that one user can own at the same time."""
    nodes_per_user: int = Field(default=5, ge=0)
    """Instance nodes that one user can own."""
    documents_per_user: int = Field(default=1_000, ge=0)
    """Documents, and resources of a host's own types, that one user can own."""
    user_documents_bytes: int = Field(default=16 * MIB, ge=0)
    """Total size of the documents of one user."""
    seats_per_user: int = Field(default=4, ge=0)
    """Seats that the sessions of one user can occupy in one instance; 0, or `--rate-limits off`,
    lifts the limit."""
    sockets_per_user: int = Field(default=16, ge=0)
    """Open WebSockets of one user, of both APIs together; 0, or `--rate-limits off`, lifts the
    limit."""
    shares_per_resource: int = Field(default=500, ge=0)
    """Users that one resource can be shared with."""
    moderations_per_user: int = Field(default=10_000, ge=1)
    """Entries in the moderation log of the instances of one owner. A new entry beyond that deletes
    the oldest."""
    message_limit_bytes: int = Field(default=64 * KIB, ge=1 * KIB)
    """Largest message on a WebSocket."""
    messages_per_s: float = Field(default=120, gt=0)
    """Messages per second that one WebSocket can send on average. A message over 1 KiB counts once
    per started KiB."""
    messages_burst: int = Field(default=240, ge=1)
    """Messages that one WebSocket can send at once."""
    backlog_limit_bytes: int = Field(default=1 * MIB, ge=64 * KIB)
    """Bytes that can wait for one slow WebSocket; beyond that it is closed with code 4008. From
    half of it on, the users who send most of these bytes are slowed down."""
    connections: int = Field(default=10_000, ge=1)
    """Open connections at the same time. Further connections are refused with 503 or 1013."""
    connections_per_address: int = Field(default=256, ge=0)
    """Open connections per address (per /64 network for IPv6). Further connections are refused with
    429. 0, or `--rate-limits off`, lifts the limit. It applies to each client behind
    `--trusted-proxies`, not to these."""
    http_idle_s: float = Field(default=75, gt=0)
    """Seconds after which an idle HTTP connection is closed."""
    http2: bool = True
    """Offer HTTP/2: over TLS, and over plain TCP with prior knowledge."""
    deflate: bool = False
    """Offer permessage-deflate, the compression of WebSocket messages."""

    # WebSocket timeouts
    credential_deadline_s: float = Field(default=10, gt=0)
    """Seconds a WebSocket has to authenticate; after that it is closed with code 4001."""
    keepalive_interval_s: float = Field(default=20, gt=0)
    """Seconds between the pings of a WebSocket."""
    keepalive_timeout_s: float = Field(default=20, gt=0)
    """Seconds a WebSocket has to answer a ping."""

    # Sessions
    away_s: float = Field(default=60, gt=0)
    """Seconds a session without a WebSocket keeps its resource."""
    resource_offer_s: float = Field(default=30, gt=0)
    """Seconds for which a free resource is offered to the first session that waits for it."""
    ack_timeout_ms: int = Field(default=10_000, ge=100)
    """Milliseconds a client of the session API has to acknowledge an event."""

    # Instances
    seat_grace_s: float = Field(default=10, ge=0)
    """Seconds a player's seat is kept after its WebSocket was lost."""
    closed_seat_grace_s: float = Field(default=1.5, ge=0)
    """Seconds a player's seat is kept after the client closed its WebSocket itself (1000, 1001);
    at most as long as after a loss, and as long as that in a full instance, unless it is 0."""
    hold_s: float = Field(default=30, gt=0)
    """Seconds a seat is held for an admitted candidate."""
    queue_grace_s: float = Field(default=60, ge=0)
    """Seconds a candidate keeps its position in the queue after its WebSocket was lost."""
    empty_instance_s: float = Field(default=60, ge=0)
    """Seconds after which an empty instance closes, unless it is permanent."""
    unused_instance_s: float = Field(default=600, ge=0)
    """Seconds from its making for which an instance stays that nobody has entered."""
    retained_keys_per_player: int = Field(default=64, ge=1)
    """Keyed values that an instance retains per player."""
    retained_bytes_per_player: int = Field(default=64 * KIB, ge=1 * KIB)
    """Total size of the retained values of one player, with their keys."""
    candidates_per_instance: int = Field(default=4_096, ge=1)
    """Candidates per instance: admitted, waiting, and pending. A further request is refused with
    error 122."""
    link_grace_s: float = Field(default=30, ge=0)
    """Seconds for which an instance whose node has lost its link waits for it with its players."""
    mailbox_limit: int = Field(default=65_536, ge=16)
    """Messages that can wait for one instance; further data is refused with error 122."""

    # Other servers
    federation: Literal["open", "allowlist", "off"] = "open"
    """`open`: any server can become known, unless a rule blocks it. `allowlist`: only servers that
    a rule allows. `off`: no requests to or from other servers."""
    guests: Literal["open", "known", "off"] = "known"
    """Users of other servers. `known`: those of servers with a token, up to 1,000 new ones an hour
    for each server. `open`: without that limit. `off`: none."""
    guests_own: bool = False
    """Let guests own worlds and instances here."""
    federation_allow: str | None = None
    """Networks, separated by commas, in which other servers may be although they are not public:
    `10.1.0.0/16,fd00::/8`. Only there can an IP address be the address of a server."""
    federation_insecure: str | None = None
    """Addresses of servers, separated by commas, that are reached without TLS: `10.1.0.7:3032`."""

    # Cluster
    nats: str | None = None
    """`nats://` URLs of NATS, separated by commas. With it, the server is a node of a cluster: all
    nodes with the same `--database` and `--nats` act as one server. Needs `--database`, `--address`
    and the same `--key` on each node."""
    cluster: str = Field(default="reileta", pattern=r"^[A-Za-z0-9_-]{1,32}$")
    """The name of the cluster, for clusters that share NATS."""
    node_name: str | None = Field(default=None, pattern=r"^[!-~]{1,64}$")
    """The name of this node for operators; by default the name of the host, and the port."""

    # Roles
    role: str = "all"
    """What this process does: `all`, or some of `eta` (registry), `reil` (gateway) and `ins` (live
    instances), separated by commas. Other processes have the other roles; all need `--nats`."""
    eta: str | None = None
    """`http://` or `https://` URLs of processes with the role `eta`, separated by commas, for one
    with the role `reil` and without `eta`."""
    eta_ca: Path | None = None
    """A PEM file with the certificates that sign those of `https://` URLs in `--eta`; by default,
    those of the system count."""
    gateway_address: str | None = None
    """The address by which clients reach this gateway, if it has one of its own; by default
    `--address`. URLs in answers name it."""
    gateway_secret: Path | None = None
    """A file with a secret of at least 32 characters, the same at all processes with the roles
    `reil` and `eta`. With it, a registry believes only gateways that know it. While one secret
    replaces another, the file has both, each on a line."""

    # Shutdown
    shutdown_s: float = Field(default=8, gt=0)
    """Seconds for an orderly shutdown."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, and the environment if it has any setting: the search there for each of them
        takes most of the time in which settings are made."""
        if any(name.upper().startswith(ENV_PREFIX) for name in os.environ):
            return init_settings, env_settings
        return (init_settings,)

    @field_validator("address")
    @classmethod
    def _address_is_a_server(cls, value: str | None) -> str | None:
        if value is None:
            return None
        address = canonical(value)
        ip = ip_of(address)
        if ip is not None and ip.is_unspecified:
            raise ValueError("must be the address by which clients reach this server")
        return address

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_addresses(cls, value: str | None) -> str | None:
        TrustedProxies.parse(value or "")
        return value

    @field_validator("federation_allow")
    @classmethod
    def _allowed_are_networks(cls, value: str | None) -> str | None:
        Networks.parse(value or "")
        return value

    @field_validator("federation_insecure")
    @classmethod
    def _insecure_are_servers(cls, value: str | None) -> str | None:
        return None if value is None else ",".join(sorted(_servers(value)))

    @field_validator("base_path")
    @classmethod
    def _base_path_is_a_path(cls, value: str | None) -> str | None:
        return None if value is None else base_path_of(value)

    @field_validator("role")
    @classmethod
    def _roles_are_known(cls, value: str) -> str:
        roles_of(value)
        return value

    @field_validator("eta")
    @classmethod
    def _etas_are_urls(cls, value: str | None) -> str | None:
        if value is not None:
            etas_of(value)
        return value

    @field_validator("gateway_address")
    @classmethod
    def _gateway_is_an_address(cls, value: str | None) -> str | None:
        return None if value is None else canonical(value)

    @field_validator("database")
    @classmethod
    def _database_is_postgresql(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        return value

    @field_validator("nats")
    @classmethod
    def _nats_is_urls(cls, value: str | None) -> str | None:
        urls = () if value is None else tuple(map(str.strip, value.split(",")))
        # A URL may hold a password, so the message does not repeat it.
        if not all(url.startswith(("nats://", "tls://")) for url in urls):
            raise ValueError("must be URLs such as nats://localhost:4222")
        return value

    @model_validator(mode="after")
    def _cluster_shares_a_database(self) -> Settings:
        if self.nats is None:
            return self
        if self.database is None:
            raise ValueError("--nats needs --database: all nodes of a cluster use one database")
        if self.read_cache == "on":
            raise ValueError("--read-cache on can't be used with --nats: other nodes write, too")
        return self

    @model_validator(mode="after")
    def _roles_fit_together(self) -> Settings:
        alone = "reil" in self.roles and "eta" not in self.roles
        if self.roles != frozenset(ROLES) and self.nats is None:
            raise ValueError(
                f"--role {self.role} needs --nats: other processes have the other roles"
            )
        if alone and self.eta is None:
            raise ValueError(f"--role {self.role} needs --eta: the URLs of the registry")
        if self.eta is not None and not alone:
            raise ValueError("--eta is only for a process with the role reil and without eta")
        if self.eta_ca is not None and not any(eta.secure for eta in self.eta_urls):
            raise ValueError("--eta-ca is only for https:// URLs in --eta")
        if self.registry_alone and self.trusted_proxies is None:
            raise ValueError(
                f"--role {self.role} needs --trusted-proxies: the addresses of the gateways"
            )
        if self.gateway_secret is not None and not (alone or self.registry_alone):
            raise ValueError("--gateway-secret is only for a process with either reil or eta")
        if self.gateway_address is not None and "reil" not in self.roles:
            raise ValueError("--gateway-address is only for a process with the role reil")
        return self

    @model_validator(mode="after")
    def _tls_is_complete(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key must be used together")
        return self

    @property
    def caches_reads(self) -> bool:
        """Whether the read cache is on (`store/read_cache.py`)."""
        if self.read_cache == "auto":
            return self.database is None
        return self.read_cache == "on"

    @property
    def files_folder(self) -> Path:
        """The folder of uploaded files."""
        return self.data / "files" if self.files is None else self.files

    @property
    def roles(self) -> frozenset[Role]:
        """What this process does."""
        return roles_of(self.role)

    @property
    def registry_alone(self) -> bool:
        """Whether this process is a registry behind gateways."""
        return "eta" in self.roles and "reil" not in self.roles

    @property
    def eta_urls(self) -> tuple[EtaUrl, ...]:
        """The registries behind this gateway; none if it is one itself."""
        return () if self.eta is None else etas_of(self.eta)

    @property
    def nats_urls(self) -> tuple[str, ...]:
        """The URLs of NATS; none without a cluster."""
        return () if self.nats is None else tuple(map(str.strip, self.nats.split(",")))

    @property
    def secure(self) -> bool:
        return self.tls_cert is not None

    @property
    def allowed_networks(self) -> Networks:
        """Networks in which other servers may be although they are not public."""
        return Networks.parse(self.federation_allow or "")

    @property
    def insecure_servers(self) -> frozenset[str]:
        """Canonical addresses of the servers that are reached without TLS."""
        return _servers(self.federation_insecure or "")


def _servers(text: str) -> frozenset[str]:
    """The canonical addresses in a list with commas. Raises ValueError."""
    return frozenset(canonical(entry) for entry in map(str.strip, text.split(",")) if entry)


def group_of(name: str) -> str:
    """The title of a setting's group."""
    group = ""
    for field in Settings.model_fields:
        group = GROUPS.get(field, group)
        if field == name:
            break
    return group
