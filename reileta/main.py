"""The composition root: settings → store → actors → api → serve, and the shutdown order.

The only module of `reileta` that imports `actors` and `api`.
"""

from __future__ import annotations

import gc
import io
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Final

import structlog
import trio

from actors.change_feed import POLL_S, ChangeApplier
from actors.cluster.cluster import OnFall
from actors.cluster.cut_off import CutOff
from actors.file_collector import FileCollector
from actors.node import AUDIT_TRIM_S, SUSPENSIONS_S, Node
from actors.runtime.loop_lag import measure_lag
from actors.runtime.trace import add_trace
from actors.runtime.trace_watch import TraceWatch
from actors.temporary_accounts import SWEEP_S as TEMPORARY_SWEEP_S
from actors.temporary_accounts import TemporaryAccounts
from api.app import ReiletaApp, create_app
from api.listen.gateways import TrustedGateways
from api.listen.server import HttpServer, open_listeners
from api.listen.timeouts import Timeouts
from api.proxy.proxy import GatewayProxy
from api.proxy.upstream import tls_context
from api.shared_limits import SharedLimits
from api.web.pages import Pages
from api.ws.gateway import Gateway, elsewhere_blueprint, gateway_blueprint
from api.ws.link.route import link_blueprint
from api.ws.session.routes import session_blueprint
from reileta import __version__
from reileta.allocator import EVERY_S as MEMORY_S
from reileta.allocator import give_back_beside, share_one_heap
from reileta.clock import SystemClock
from reileta.cluster.member import Member
from reileta.errors import DatabaseUnavailable
from reileta.federation.client import GuardedClient, ListeningSockets
from reileta.observability import log, log_events
from reileta.observability.line_writer import LineWriter, write_all
from reileta.observability.metrics import Metrics
from reileta.observability.output_files import OutputFiles
from reileta.observability.warning_rate import WarningRate
from reileta.rules.federation.addresses import canonical
from reileta.rules.resource.types import BUILT_IN, ResourceTypes
from reileta.security.gateway_secret import read_gateway_secrets
from reileta.security.passwords import Passwords
from reileta.security.server_key import ServerKey, adopt, key_path, load_known, renew
from reileta.settings import Settings
from reileta.startup import StartupError, check_tls, raise_descriptor_limit
from reileta.store import Store, open_store
from reileta.store.attempts import SWEEP_S
from reileta.store.cluster_leases import ClusterLeases
from reileta.store.database_clock import FOLLOW_S, DatabaseClock
from reileta.store.server_lock import WATCH_S
from reileta.store.shared_folder import ensure_shared_folder

STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
HTTP_GRACE_S: Final = 1.0
"""Seconds that running HTTP requests get once all sockets are closed."""
HTTP_END_S: Final = 0.5
"""Seconds for the requests that were not finished by then: each is cancelled, and answered 503."""

SHOW_S: Final = 1.0
"""Seconds until the password of the first start must be written, before the start goes on."""

_log = structlog.get_logger()


def run(settings: Settings, types: ResourceTypes = BUILT_IN) -> int:
    """Runs a server until it is stopped; returns the exit status of the process.

    `types` are the resource types, including a host's own.

    Raises:
        StartupError, OSError, DatabaseUnavailable: it can't start; the operator can fix the reason.
    """
    share_one_heap()  # before the first thread, which would get a heap of its own
    output = LineWriter.standard_output(
        lambda lines: _log.warning(log_events.LOG_DROPPED, lines=lines)
    )
    traces = TraceWatch()
    extra = (WarningRate(), add_trace, traces.take)
    log.configure(settings.log_format, settings.log_level, stream=output, extra=extra)
    sys.unraisablehook = _log_unraisable
    tune_collector()
    raise_descriptor_limit()
    try:
        trio.run(_until_stopped, settings, types, output, traces)
    finally:
        output.drain()
    return 0


def _log_unraisable(raised: sys.UnraisableHookArgs) -> None:
    """Logs what Python would write to standard error, where a full pipe would stop the server."""
    message = raised.err_msg or "exception ignored"
    _log.error(log_events.LIBRARY_SAID, logger="python", message=message, exc_info=raised.exc_value)


def tune_collector() -> None:
    """Makes the garbage collector look at old objects less often.

    Messages are many and never cyclic, and objects of the startup live until the end.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _until_stopped(
    settings: Settings, types: ResourceTypes, output: LineWriter, traces: TraceWatch
) -> None:
    with trio.open_signal_receiver(*STOPS, signal.SIGHUP) as signals:
        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as serving:
                stopping = Stopping(outer.cancel_scope, OutputFiles())
                outer.start_soon(stopping.handle, signals)
                stopping.server = await serving.start(
                    partial(serve, traces=traces), settings, types
                )
                stopping.server.node.metrics.log_dropped = lambda: output.dropped
            outer.cancel_scope.cancel()
    _log.info(log_events.SERVER_STOPPED)


class Stopping:
    """Signal handling: the first of `STOPS` stops the server in order; a second one, or one that
    comes before the server has started, stops it at once. SIGHUP reloads."""

    def __init__(self, everything: trio.CancelScope, files: OutputFiles) -> None:
        self.server: Server | None = None
        self._everything = everything
        self._files = files
        self._reloading = False
        self._reload_again = False

    async def handle(self, signals: AsyncIterator[int]) -> None:
        """Handles signals, forever."""
        async with trio.open_nursery() as nursery:
            first = True
            async for number in signals:
                if number == signal.SIGHUP:
                    self._reload_again = True
                    if not self._reloading:
                        self._reloading = True
                        nursery.start_soon(self._reload)
                    continue
                _log.info(log_events.SERVER_DRAINING, signal=signal.Signals(number).name)
                if self.server is None or not first:
                    self._everything.cancel()
                    return
                first = False
                nursery.start_soon(self.server.stop)

    async def _reload(self) -> None:
        """Reloads, one time after the other; signals that come meanwhile share the next time."""
        while self._reload_again:
            self._reload_again = False
            await self._reopen()
            if self.server is not None:
                await self.server.reload()
        self._reloading = False

    async def _reopen(self) -> None:
        try:
            # In a thread, since the disk may be slow.
            files = await trio.to_thread.run_sync(self._files.reopen, abandon_on_cancel=True)
        except OSError as error:
            _log.error(log_events.LOG_REOPENED, reason=error.strerror, file=error.filename)
        else:
            _log.info(log_events.LOG_REOPENED, files=[str(file) for file in files])


class Server:
    """A running server at `url`."""

    def __init__(
        self,
        url: str,
        node: Node,
        http_server: HttpServer,
        gateway: Gateway,
        serving: trio.CancelScope,
        proxy: GatewayProxy | None = None,
    ) -> None:
        self.url = url
        self.node = node
        self.gateway = gateway
        self.http_server = http_server
        self.proxy = proxy
        """Passes requests on to registries; None: this process is one itself, or no gateway."""
        self._serving = serving

    async def stop(self) -> None:
        """Stops in order and in bounded time: closes sockets, finishes requests, accepts nothing
        new.

        `serve` then stops the actors, closes the database, and returns.
        """
        self.node.draining = True
        self.http_server.stop_accepting()
        if self.node.cluster is not None:
            with trio.move_on_after(self.node.settings.shutdown_s / 4):
                await self.node.cluster.hosting.drain()
        if self.node.kept_seats is not None:
            await self.node.kept_seats.finish()
        await self.gateway.drain(self.node.settings.shutdown_s / 2)
        with trio.move_on_after(HTTP_GRACE_S):
            await self.http_server.finish_requests()
        with trio.move_on_after(HTTP_END_S):
            await self.http_server.refuse_requests()
        self._serving.cancel()

    async def reload(self) -> None:
        """Reads the TLS files again, and takes a new key. Open connections keep the certificate
        that they have."""
        await self._reload_tls()
        await self._reload_key()

    async def _reload_key(self) -> None:
        node = self.node
        if not node.has_key:
            return
        old = node.key
        path = key_path(node.settings)
        take = partial(renew, path, old, node.address, node.clock.now_ms())
        try:
            # In a thread, since the disk may be slow; not abandoned, since it changes the file.
            key = await trio.to_thread.run_sync(take)
        except StartupError as error:
            _log.error(log_events.SERVER_KEY_REFUSED, reason=str(error))
            return
        if key is not old:
            _log.info(log_events.SERVER_KEY_CHANGED, public_key=key.public_base64url)
            with suppress(DatabaseUnavailable):
                await node.take_key(key)

    async def _reload_tls(self) -> None:
        settings = self.node.settings
        if not settings.secure:
            return
        try:
            await trio.to_thread.run_sync(check_tls, settings.tls_cert, settings.tls_key)
            self.http_server.reload_tls()
        except (StartupError, OSError) as error:
            _log.error(log_events.TLS_REFUSED, reason=str(error))
        else:
            _log.info(log_events.TLS_RELOADED)


async def serve(
    settings: Settings,
    types: ResourceTypes = BUILT_IN,
    *,
    timeouts: Timeouts | None = None,
    traces: TraceWatch | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until `Server.stop`; started with the server, once it accepts connections.

    `traces` takes what is logged about traces, for the console.
    `timeouts` are those of HTTP connections; None: those of the settings.
    """
    listeners, port = await open_listeners(settings)
    try:
        _check_address(settings, listeners)
        await _serve_on(listeners, port, settings, types, timeouts, traces, task_status)
    finally:
        for listener in listeners:
            listener.socket.close()


def _check_address(settings: Settings, listeners: Sequence[trio.SocketListener]) -> None:
    """Raises StartupError if ids would contain an address that means all addresses, or a different
    one at each node of a cluster."""
    if settings.nats is not None and settings.address is None:
        raise StartupError(
            "--address is needed with --nats: the name by which clients reach the cluster, such as "
            "play.example.org"
        )
    host = listeners[0].socket.getsockname()[0]
    if settings.address is None and ip_address(host.partition("%")[0]).is_unspecified:
        raise StartupError(
            f"--address is needed with --host {settings.host}: the name by which clients reach "
            "this server, such as play.example.org"
        )


async def _serve_on(
    listeners: Sequence[trio.SocketListener],
    port: int,
    settings: Settings,
    types: ResourceTypes,
    timeouts: Timeouts | None,
    traces: TraceWatch | None,
    task_status: trio.TaskStatus[Server],
) -> None:
    clock = DatabaseClock()
    metrics = Metrics()
    address = settings.address or _own_address(settings.host, port)
    scheme = "https" if settings.secure else "http"
    passwords = Passwords()
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with open_store(settings, clock, exclusive=True, types=types) as store:
        await clock.follow(store.database)
        if settings.nats is not None and "eta" in settings.roles:
            await ensure_shared_folder(store.database, settings.files_folder)
        await _first_start(store, passwords)
        if settings.nats is None:  # else other nodes may have the instances
            async with store.lock.session() as queries:
                await ClusterLeases(queries).clear()
                await store.instances.over(queries).all_empty_from(clock.now_ms())
            await store.host_nodes.forget_links()
        await store.changes.begin()
        signs = bool(settings.roles & {"eta", "reil"})
        secrets = read_gateway_secrets(settings.gateway_secret)
        key = await _take_key(settings, store, address, clock) if signs else None
        public_key = None if signs else await store.identity.public_key()
        async with (
            _client(settings, address, listeners) as client,
            Node.open(
                settings=settings,
                store=store,
                clock=clock,
                metrics=metrics,
                instruments=metrics,
                address=address,
                key=key,
                public_key=public_key or "",
                client=client,
                name=settings.node_name or f"{socket.gethostname()}:{port}",
                traces=traces,
            ) as node,
            _apis(node, passwords, timeouts, port, secrets) as apis,
            trio.open_nursery() as nursery,
        ):
            app, http_server, gateway = apis.app, apis.http_server, apis.gateway
            limits = app.limits
            await node.servers.apply()
            await node.notices.load()
            node.clients.listeners += (gateway.apply_client_rules, node.exclude_accounts)
            await node.clients.apply()
            if node.kept_seats is not None:
                await node.kept_seats.load()
            if node.cluster is not None:
                leave = partial(_send_away_if_isolated, node.cluster.member, gateway)
                node.cluster.member.listeners.append(OnFall(leave))
            nursery.start_soon(http_server.serve, listeners)
            background = node.background
            if node.kept_seats is not None:
                background.run(nursery, "seats", node.kept_seats.run)
            if node.cluster is not None:
                cut_off = CutOff(node.cluster.member, gateway.send_away)
                background.run(nursery, "outages", cut_off.run)
            if node.shared is not None:
                node.shared.use(gateway.auth)
                limits.share(store.attempts)
                shared_limits = SharedLimits(node.shared.member, limits)
                background.run(nursery, "limits", shared_limits.run)
                background.repeat(
                    nursery, "attempts", node.sweep_attempts, every_s=SWEEP_S, delayed=True
                )
            changes = ChangeApplier(store, node, gateway.auth)
            if "eta" in settings.roles:
                files = FileCollector(store.files, store.blobs, store.lock, clock, SystemClock())
                background.run(nursery, "files", files.run)
                background.repeat(
                    nursery, "suspensions", node.lift_suspensions, every_s=SUSPENSIONS_S
                )
                background.repeat(
                    nursery,
                    "temporary accounts",
                    TemporaryAccounts(node).sweep,
                    every_s=TEMPORARY_SWEEP_S,
                )
                background.repeat(nursery, "audit", node.trim_audit, every_s=AUDIT_TRIM_S)
            background.run(nursery, "sockets", gateway.watch)
            if app.proxy is not None:
                background.run(nursery, "registries", app.proxy.watch)
            background.repeat(nursery, "changes", changes.step, every_s=POLL_S, delayed=True)
            background.run(nursery, "lag", partial(measure_lag, metrics))
            background.repeat(
                nursery,
                "time",
                partial(clock.follow_again, store.database.urgent),
                every_s=FOLLOW_S,
            )
            background.repeat(nursery, "lock", store.lock.watch, every_s=WATCH_S, delayed=True)
            background.repeat(nursery, "memory", give_back_beside, every_s=MEMORY_S, delayed=True)
            node.server.ready_at = clock.now_ms()
            url = f"{scheme}://{address_of(settings.host, port)}"
            _log.info(
                log_events.SERVER_READY, url=url, address=address, port=port, version=__version__
            )
            task_status.started(
                Server(url, node, http_server, gateway, nursery.cancel_scope, app.proxy)
            )


def _send_away_if_isolated(member: Member, gateway: Gateway, _: str) -> None:
    """A node that NATS does not answer is of no use to its clients, unlike its peers."""
    if member.isolated:
        gateway.send_away()


async def _take_key(
    settings: Settings, store: Store, address: str, clock: DatabaseClock
) -> ServerKey:
    """The server's key, which the database knows from now on. Raises StartupError."""
    path, known = key_path(settings), await store.identity.public_key()
    key = adopt(path, load_known(path, known, address), address, clock.now_ms())
    public = key.public_base64url
    if (
        public != known
        and not await store.identity.replace_public_key(public, known=known)
        # Another node may have been faster, with the same key.
        and await store.identity.public_key() != public
    ):
        raise StartupError("the server's key was replaced meanwhile: start the server again")
    return key


def _client(
    settings: Settings, address: str, listeners: Sequence[trio.SocketListener]
) -> GuardedClient:
    """The client for requests to other servers."""
    return GuardedClient(
        address=address,
        own=ListeningSockets(listener.socket.getsockname()[:2] for listener in listeners),
        allowed=settings.allowed_networks,
        insecure=settings.insecure_servers,
    )


@dataclass(frozen=True, slots=True)
class _Apis:
    """What this process serves."""

    app: ReiletaApp
    http_server: HttpServer
    gateway: Gateway


@asynccontextmanager
async def _apis(
    node: Node,
    passwords: Passwords,
    timeouts: Timeouts | None,
    port: int,
    secrets: tuple[bytes, ...],
) -> AsyncIterator[_Apis]:
    settings, now_ms = node.settings, node.clock.now_ms
    pages = Pages.read() if "reil" in settings.roles else None
    if pages is None and "reil" in settings.roles:
        _log.info(log_events.PAGES_OMITTED, hint="`make web` builds the pages at / and /console")
    app: ReiletaApp = create_app(node, passwords=passwords, port=port, pages=pages)
    gateway = Gateway(node, app.auth)
    if "reil" in settings.roles:
        app.register_blueprint(gateway_blueprint(gateway))
        app.register_blueprint(session_blueprint(gateway, app.limits))
        app.register_blueprint(link_blueprint(gateway, app.limits))
    elif settings.registry_alone:
        app.register_blueprint(elsewhere_blueprint(node))
    if settings.eta_urls:
        app.proxy = GatewayProxy(
            settings.eta_urls,
            gateway=settings.gateway_address or node.address,
            secret=secrets[0] if secrets else None,
            now_ms=now_ms,
            tls=tls_context(settings.eta_ca) if settings.eta_ca is not None else None,
        )
        node.unready.append(app.proxy.unready)
    gateways = TrustedGateways(secrets, now_ms) if settings.registry_alone else None
    http_server = HttpServer(
        app, settings, node.metrics, timeouts, node.background, gateways, node.rounds, node.load
    )
    try:
        yield _Apis(app, http_server, gateway)
    finally:
        if app.proxy is not None:
            app.proxy.close()


async def _first_start(store: Store, passwords: Passwords) -> None:
    """Creates the accounts that every server has, and shows the admin's password once."""
    password = await store.users.ensure_system_accounts(passwords.hash)
    if password is not None:
        # To the terminal, not to the log: logs are stored, and other people read them.
        text = (
            f"\n  An administrator account was created.  username: admin  password: {password}\n"
            "  The password is shown only this once; keep it.\n\n"
        )
        # If nobody reads, the thread waits for a reader, and the server starts without it.
        with trio.move_on_after(SHOW_S):
            await trio.to_thread.run_sync(_show, text, abandon_on_cancel=True)


def _show(text: str) -> None:
    """Writes to standard error, without Python's buffer and its lock."""
    if sys.stderr is not None:
        try:
            descriptor = sys.stderr.fileno()
        except io.UnsupportedOperation:  # a host program has replaced it
            descriptor = 2
        write_all(descriptor, text.encode("ascii", "backslashreplace"))


def _own_address(host: str, port: int) -> str:
    """The canonical address of a server that has none in its settings. Raises StartupError."""
    try:
        return canonical(address_of(host, port))
    except ValueError as error:
        raise StartupError(
            f"--address is needed with --host {host}: the name by which clients reach this "
            f"server, which {error}"
        ) from None


def address_of(host: str, port: int) -> str:
    """`host:port`, with IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
