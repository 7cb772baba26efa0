"""The Quart-Trio application: all blueprints, and the steps common to all requests.

The steps of a request: start a trace; answer `OPTIONS` and check the limit of the address
(`_before`); run the operation (`api/http/endpoint.py`); turn an exception into an error answer
(`_refused`); add the common headers; count the request in the metrics.

There are two ways in. This server's connections call `answer`, which calls the operation without
Quart. Requests that are not for an operation, and requests through ASGI, take `handle_request`,
which goes through Quart. Both give the same answers (`tests/api/http/test_dispatch.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from quart import Quart, Response, has_request_context, request, websocket
from quart.sessions import SessionInterface, SessionMixin
from quart.wrappers import Request, Websocket
from quart.wrappers.base import BaseRequestWebsocket
from quart_trio import QuartTrio
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.wrappers import Response as WerkzeugResponse

from actors.node import Node
from actors.runtime.trace import Sampler, Span, Traced
from api.credentials import Auth
from api.envelope import failure
from api.errors import answered, refusal_of
from api.http.answer import Answer, answer_of, encoded, json_answer, response_of
from api.http.bodies import HttpExchange, ReceivedRequest, ReceivedUpgrade
from api.http.dispatch import Dispatch
from api.http.endpoint import ApiDeps, Operation, Routes, Serve, address_of, line_of
from api.http.etags import AnswerCache
from api.http.headers import cookie_name
from api.http.health import metrics_blueprint, ops_routes
from api.http.registry.accounts import account_routes
from api.http.registry.administration import administration_routes
from api.http.registry.assets import asset_routes
from api.http.registry.auth import auth_routes
from api.http.registry.challenges import challenge_routes
from api.http.registry.client_rules import client_rule_routes
from api.http.registry.console import console_routes
from api.http.registry.follows import follow_routes
from api.http.registry.homes import home_routes
from api.http.registry.images import image_routes
from api.http.registry.instances import instance_routes
from api.http.registry.integrity import integrity_routes
from api.http.registry.moderation import moderation_routes
from api.http.registry.nodes import node_routes
from api.http.registry.queue import queue_routes
from api.http.registry.server import server_routes
from api.http.registry.servers import peer_server_routes
from api.http.registry.services import service_routes
from api.http.registry.user_sessions import user_session_routes
from api.http.registry.users import user_routes
from api.http.registry.worlds import world_routes
from api.http.session.resources import resource_routes
from api.http.session.session import session_routes
from api.http.session.tokens import token_routes
from api.http.uploads import UploadSlots
from api.openapi.page import docs_blueprint
from api.proxy.proxy import GatewayProxy
from api.rate_limits import HttpRateLimits, network
from api.reached import gateway_of, trace_of
from api.web.pages import Pages, pages_blueprint
from reileta.errors import (
    CredentialInvalid,
    CredentialMalformed,
    GuestNotAllowed,
    ReiletaError,
    ServerBlocked,
    TooManyRequests,
)
from reileta.observability.log_events import REQUEST_SERVED, REQUEST_SLOW, UPGRADE_REFUSED
from reileta.roles import ROLES, Role
from reileta.security.passwords import Passwords

_log = structlog.stdlib.get_logger(__name__)

BODY_TIMEOUT_S: Final = 20
"""Time limit for a body; then the request fails with 408."""

SLOW_S: Final = 1.0
"""Requests that take longer are logged at level info."""

UNMATCHED: Final = "unmatched"
"""Label of all unknown paths in the metrics, so that clients can't create new labels."""
PASSED_ON: Final = "registry"
"""The same of all requests that a gateway passes on."""

EXPOSED_HEADERS: Final = (
    "Accept-Ranges",
    "Allow",
    "Content-Disposition",
    "Content-Length",
    "Content-Range",
    "Date",
    "Deprecation",
    "ETag",
    "Retry-After",
    "WWW-Authenticate",
    "X-Trace-Id",
)
"""Headers of answers that pages of other origins may read."""
COMMON_HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Access-Control-Allow-Origin", "*"),
    (
        "Access-Control-Expose-Headers",
        ", ".join(EXPOSED_HEADERS),
    ),
)
"""Headers of every answer. Pages of any origin may send requests, but without cookies: browsers
don't send credentials when the allowed origin is `*`."""

DEFAULT_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)
"""Headers of answers that don't set them themselves."""

_COMMON: Final = encoded(dict(COMMON_HEADERS))
_DEFAULT: Final = encoded(dict(DEFAULT_HEADERS))

PREFLIGHT_HEADERS: Final = {
    # This API does not use the last four. Libraries and engines of browsers add them.
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, If-None-Match,"
    " If-Range, Range, User-Agent, Cache-Control, Pragma, X-Requested-With, X-Unity-Version",
    "Access-Control-Max-Age": "86400",
}


DEFAULT_PORT: Final = 443
"""The port of an address that names none, in the name of the cookie."""
HEALTH_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Served to everybody: those who look are not clients. A gateway looks at its registries."""
SESSION_PATHS: Final = ("/auth/", "/session", "/resource/", "/ws/")
"""Prefixes of the session API's paths."""


class _NoSession(SessionInterface):
    """Turns Quart's sessions off. Reileta's sessions are in the database."""

    async def open_session(self, app: Quart, carrier: BaseRequestWebsocket) -> SessionMixin:
        return self.null_session_class()

    async def save_session(
        self, app: Quart, session: SessionMixin, response: Response | WerkzeugResponse | None
    ) -> None:
        return None


class ReiletaApp(QuartTrio):
    """The application. HTTP and WebSocket routes share `auth` and `limits`."""

    asgi_http_class = HttpExchange
    request_class = ReceivedRequest
    websocket_class = ReceivedUpgrade

    def __init__(self, node: Node, port: int) -> None:
        super().__init__(__name__, static_folder=None)
        self.session_interface = _NoSession()  # type: ignore[assignment]
        self.config["MAX_CONTENT_LENGTH"] = node.settings.body_limit_bytes
        self.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
        self.config["BODY_TIMEOUT"] = BODY_TIMEOUT_S
        # Answer `/api//time` with 404 in the envelope, instead of a redirect in HTML.
        self.url_map.merge_slashes = False
        self.node = node
        # Processes of different roles listen on different ports, and need one name.
        alone = node.settings.roles == frozenset(ROLES)
        self.auth = Auth(
            node.store.tokens,
            node.clock,
            cookie=cookie_name(node.address, port if alone else DEFAULT_PORT),
            address=node.address,
            servers=node.servers,
            guests=node.store.guests,
            admission=node.guests.policy,
            clients=None if node.settings.registry_alone else node.clients,
        )
        self.limits = HttpRateLimits(node.clock, enabled=node.settings.rate_limits == "on")
        self._sampler = Sampler(node.settings.trace_sample)
        node.traces.add(self._sampler)
        self.answers = AnswerCache()
        self.operations: list[Operation] = []
        self.dispatch = Dispatch(self.url_map)
        self.proxy: GatewayProxy | None = None
        """Passes what this process has no route for on to a registry; None: it is not a gateway, or
        a registry itself."""
        self.before_request_funcs[None].append(self._before)
        self.before_websocket_funcs[None].append(self._before_upgrade)
        self.register_error_handler(Exception, self._refuse)

    def register_routes(self, routes: Routes) -> None:
        """Adds the operations of a noun."""
        self.register_blueprint(routes.blueprint)
        self.dispatch.serves.update(routes.serves)
        self.operations += routes.operations

    async def handle_request(self, request: Request) -> Response | WerkzeugResponse:
        """Serves one request through Quart, traces it and counts it."""
        started = time.perf_counter()
        with Traced(self._sampler.begin(trace_of(request))) as span:
            try:
                response = await super().handle_request(request)
            finally:
                _forget_routing(request)
            _add_headers(response, span)
            self._count(request, response.status_code, span, started)
        return response

    async def handle_websocket(self, websocket: Websocket) -> Response | WerkzeugResponse | None:
        """Decides about one upgrade. If it is refused, the answer is traced, counted and logged
        like that of a request. None: it was accepted."""
        started = time.perf_counter()
        with Traced(self._sampler.begin()) as span:
            try:
                response = await super().handle_websocket(websocket)
            finally:
                _forget_routing(websocket)
            if response is not None:
                _add_headers(response, span)
                self._count(websocket, response.status_code, span, started)
                self._count_refused_upgrade(
                    websocket, response.status_code, address_of(websocket), span
                )
        return response

    async def answer(self, request: Request) -> Answer:
        """Serves one request of this server's own connections, without ASGI and Quart."""
        match = self.dispatch.find(request.method, request.path)
        if match is None:
            if self.proxy is not None and not self.dispatch.knows(request.path):
                return await self._pass_on(request, self.proxy)
            return answer_of(await self.handle_request(request))
        request.url_rule, serve, args = match
        request.view_args = dict(args)
        started = time.perf_counter()
        with Traced(self._sampler.begin(trace_of(request))) as span:
            answer = await answered(
                partial(self._served, request, serve, args), partial(self._refused, request)
            )
            _complete(answer, span)
            self._count(request, answer.status, span, started)
        return answer

    async def _served(self, request: Request, serve: Serve, args: Mapping[str, str]) -> Answer:
        self._admit(request)
        self._note_scheme(request)
        answer = await serve(request, args)
        return answer if isinstance(answer, Answer) else answer_of(answer)

    def refuse(
        self,
        error: ReiletaError,
        line: str,
        address: str,
        *,
        upgrade: bool = False,
        status: int | None = None,
    ) -> Answer:
        """The error answer for input that is not a valid request, or for an overloaded server.

        It is traced, counted and limited like other requests.

        Args:
            line: the envelope's `request`, as far as it is known.
            upgrade: whether it is the answer to an upgrade.
            status: replaces the status of the error.
        """
        started = time.perf_counter()
        with Traced(self._sampler.begin()) as span:
            try:
                self.limits.address(address)
            except TooManyRequests as limited:
                error = limited
            answer = self._refusal(error, line, UNMATCHED)
            if status is not None and not isinstance(error, TooManyRequests):
                answer.status = status
            _complete(answer, span)
            self._count(None, answer.status, span, started, address=address)
            if upgrade:
                self._count_refused_upgrade(None, answer.status, address, span)
        return answer

    def _count_refused_upgrade(
        self, websocket: Websocket | None, status: int, address: str, span: Span
    ) -> None:
        """Counts and logs an upgrade that was refused. `websocket` is None if its handshake was not
        valid."""
        self.node.metrics.upgrades_refused[status] += 1
        rule = None if websocket is None else websocket.url_rule
        route = UNMATCHED if rule is None else rule.rule
        self.node.activity.note(
            UPGRADE_REFUSED,
            network(address),
            address=address,
            trace=span.trace_id,
            route=route,
            status=status,
        )

    def _count(
        self,
        carrier: BaseRequestWebsocket | None,
        status: int,
        span: Span,
        started: float,
        *,
        address: str = "unknown",
        route: str = UNMATCHED,
    ) -> None:
        """Counts and logs an answer. `carrier` is None if the input was not a valid request from
        `address`.

        Quart's global `request` must not be used here: most requests are served without Quart.
        """
        method = UNMATCHED
        if carrier is not None and carrier.url_rule is not None:
            method = carrier.method if isinstance(carrier, Request) else "GET"
            route = carrier.url_rule.rule
        seconds = time.perf_counter() - started
        self.node.metrics.http(method, route, status, seconds)
        if seconds > SLOW_S:
            if carrier is not None:
                address = address_of(carrier)
            self.node.activity.note(
                REQUEST_SLOW,
                network(address),
                address=address,
                method=method,
                route=route,
                status=status,
                ms=int(seconds * 1000),
            )
        _log.log(
            logging.INFO if span.sampled else logging.DEBUG,
            REQUEST_SERVED,
            method=method,
            route=route,
            status=status,
            us=int(seconds * 1e6),
        )

    def _note_scheme(self, carrier: BaseRequestWebsocket) -> None:
        """Events get `https` in URLs once a request has come over TLS (`LiveServer`)."""
        if carrier.scheme in ("https", "wss"):
            self.node.server.secure = True

    def _admit(self, carrier: BaseRequestWebsocket) -> None:
        """Counts a request of its address, and refuses clients whom a rule excludes; unless the
        gateway has done so."""
        if gateway_of(carrier):
            return
        if not is_session_api(carrier):
            self.limits.address(address_of(carrier))
        clients = self.node.clients
        if clients.active and not is_look_at_health(carrier):
            clients.ensure_allowed(address_of(carrier), carrier.headers.get("User-Agent", ""))

    async def _pass_on(self, request: Request, proxy: GatewayProxy) -> Answer:
        """Has a registry answer a request. The registry adds the headers that all answers have."""
        started = time.perf_counter()

        async def passed_on() -> Answer:
            self._admit(request)
            self._note_scheme(request)
            await self._ensure_credential(request)
            return await proxy.answer(request, span.trace_id)

        with Traced(self._sampler.begin()) as span:
            answer = await answered(passed_on, partial(self._refused, request))
            if all(name != b"x-trace-id" for name, _ in answer.headers):
                _complete(answer, span)
            self._count(request, answer.status, span, started, route=PASSED_ON)
        return answer

    async def _ensure_credential(self, request: Request) -> None:
        """Raises ClientBlocked if a rule refuses the account of the request, and CredentialInvalid
        if its credential was revoked here a moment ago. Other faults of the credential are the
        registry's to answer."""
        about_accounts = self.node.clients.about_accounts
        if not about_accounts and not self.auth.any_doubts:
            return
        with suppress(CredentialMalformed, GuestNotAllowed, ServerBlocked):
            credential = self.auth.credential_from(request)
            if credential is None or credential.of_server:
                return
            doubted = self.auth.doubts(credential.token)
            if about_accounts or doubted:
                try:
                    await self.auth.authenticate(credential)
                except CredentialInvalid:
                    if doubted:
                        raise

    async def _before(self) -> Response | None:
        self._note_scheme(request)
        self._admit(request)
        error = request.routing_exception
        if request.method == "OPTIONS" and isinstance(error, MethodNotAllowed):
            return _preflight(error.valid_methods or ())
        return None

    async def _before_upgrade(self) -> None:
        self._note_scheme(websocket)
        self._admit(websocket)

    async def _refuse(self, exception: Exception) -> Response:
        """Maps exceptions of requests and upgrades to responses, for Quart."""
        if has_request_context():
            return response_of(self._refused(request, exception))
        return response_of(self._refused(websocket, exception))

    def _refused(self, carrier: BaseRequestWebsocket, exception: Exception) -> Answer:
        rule = carrier.url_rule
        route = UNMATCHED if rule is None else rule.rule
        return self._refusal(exception, line_of(carrier), route)

    def _refusal(self, exception: Exception, line: str, route: str) -> Answer:
        refusal = refusal_of(exception, route=route)
        if refusal.status == 429:
            self.node.metrics.http_limited += 1
        body = failure(line, self.node.clock.now_ms(), refusal.error)
        return json_answer(body, refusal.status, encoded(dict(refusal.headers)))


def _add_headers(response: Response | WerkzeugResponse, span: Span) -> None:
    """Adds the headers that all answers have, to one of Quart's."""
    headers = response.headers
    for name, value in COMMON_HEADERS:
        headers[name] = value
    for name, value in DEFAULT_HEADERS:
        headers.setdefault(name, value)
    headers["X-Trace-Id"] = span.trace_id


def _complete(answer: Answer, span: Span) -> None:
    """Adds the headers that all answers have."""
    headers = answer.headers
    headers += _COMMON
    headers.append((b"x-trace-id", span.trace_id.encode()))
    names = {name for name, _ in headers}
    headers += [header for header in _DEFAULT if header[0] not in names]


def _forget_routing(carrier: BaseRequestWebsocket) -> None:
    """Breaks a reference cycle of a request that matched no route, after its answer.

    The exception refers to the request through its traceback, and the request's connection would
    wait for the garbage collector, which comes to old objects only after minutes.
    """
    carrier.routing_exception = None


def is_session_api(carrier: BaseRequestWebsocket) -> bool:
    """Whether it is for the session API, which checks credentials and roles before rate limits."""
    return carrier.url_rule is not None and carrier.url_rule.rule.startswith(SESSION_PATHS)


def is_look_at_health(carrier: BaseRequestWebsocket) -> bool:
    """Whether it only asks how the process is."""
    return carrier.url_rule is not None and carrier.url_rule.rule in HEALTH_PATHS


def _preflight(allowed: Iterable[str]) -> Response:
    """The answer to a CORS preflight request."""
    methods = ", ".join(sorted({*allowed, "OPTIONS"}))
    headers = {"Allow": methods, "Access-Control-Allow-Methods": methods, **PREFLIGHT_HEADERS}
    return Response(b"", 204, headers)


@dataclass(frozen=True, slots=True)
class _Subject:
    """The endpoints of a subject, and the roles of the processes that serve them."""

    routes: Routes
    roles: frozenset[Role]


_ETA: Final[frozenset[Role]] = frozenset({"eta"})
_REIL: Final[frozenset[Role]] = frozenset({"reil"})


def create_app(
    node: Node,
    *,
    passwords: Passwords | None = None,
    port: int | None = None,
    pages: Pages | None = None,
) -> ReiletaApp:
    """Makes the application of a node.

    Args:
        passwords: None for a hasher with default parameters.
        port: the port that the server listens on; None: as in the settings.
        pages: the pages that were built; None for none.
    """
    app = ReiletaApp(node, node.settings.port if port is None else port)
    deps = ApiDeps(node, app.auth, app.limits, app.answers)
    hasher = Passwords() if passwords is None else passwords
    slots = UploadSlots()
    subjects = (
        _Subject(server_routes(deps), _ETA | _REIL),
        _Subject(administration_routes(deps), _ETA),
        _Subject(console_routes(deps), _REIL),
        _Subject(auth_routes(deps, hasher), _REIL),
        _Subject(user_routes(deps, hasher), _ETA),
        _Subject(account_routes(deps, hasher), _ETA),
        _Subject(user_session_routes(deps), _REIL),
        _Subject(home_routes(deps), _ETA),
        _Subject(image_routes(deps, slots), _ETA),
        _Subject(follow_routes(deps), _ETA),
        _Subject(world_routes(deps), _ETA),
        _Subject(asset_routes(deps, slots), _ETA),
        _Subject(service_routes(deps), _ETA),
        _Subject(challenge_routes(deps), _REIL),
        _Subject(peer_server_routes(deps), _REIL),
        _Subject(client_rule_routes(deps), _REIL),
        _Subject(integrity_routes(deps), _REIL),
        _Subject(node_routes(deps), _ETA),
        _Subject(instance_routes(deps), _ETA),
        _Subject(queue_routes(deps), _ETA),
        _Subject(moderation_routes(deps), _ETA),
        _Subject(token_routes(deps, hasher), _REIL),
        _Subject(session_routes(deps), _REIL),
        _Subject(resource_routes(deps), _REIL),
        _Subject(ops_routes(deps), frozenset(ROLES)),
    )
    roles = node.settings.roles
    operations: list[Operation] = []
    for subject in subjects:
        operations += subject.routes.operations
        if subject.roles & roles:
            app.register_routes(subject.routes)
    app.register_blueprint(metrics_blueprint(deps))
    if "reil" in roles:  # it describes what clients find there, whichever process answers
        app.register_blueprint(
            docs_blueprint(operations, node.server.site, app.auth.cookie, alone=pages is None)
        )
        app.register_blueprint(pages_blueprint(node.server.site, pages))
    return app
