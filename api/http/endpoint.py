"""Endpoint declarations: route, checks and documentation of an HTTP operation.

The file of a noun makes a `Routes`, and declares each endpoint on it with its input (`takes`) and
its answer (`gives`). The pydantic model of the input also describes it in `/openapi.json`, and so
does the msgspec struct of the answer. So the code and its documentation can't differ.

A handler parses and encodes nothing: it gets a `RequestContext` (`call`) and the checked input
(`params`), and returns a view, or an `HttpReply` to add headers. It raises `ReiletaError`s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, TypedDict, TypeVar, Unpack, cast, overload

from quart import Blueprint, Response, request
from quart.wrappers import Request
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.datastructures import Headers

from actors.node import Node
from api.audit import AuditNote, audit
from api.credentials import Auth, Credential, bearer_from
from api.envelope import request_line, success, success_at_top
from api.exact_limits import ExactLimits
from api.http.answer import Answer, encoded, json_answer, response_of
from api.http.bodies import ReceivedBody
from api.http.etags import AnswerCache, Cached, key_of
from api.http.headers import ensure_not_encoded
from api.http.remote import RemoteObjects, named_server
from api.rate_limits import READ, WRITE, HttpRateLimits
from api.reached import gateway_of
from reileta.errors import (
    AuthInvalid,
    CredentialInvalid,
    GuestNotAllowed,
    InvalidInput,
    MediaTypeUnsupported,
    NotLoggedIn,
    PermissionDenied,
    ReiletaError,
    ServerNotFound,
    ServerNotKnown,
)
from reileta.protocol.input_types import Input, check
from reileta.records import User
from reileta.rules.identity import Principal, ServerPrincipal, ensure_not_temporary
from reileta.rules.ratelimit import Rate
from reileta.rules.resource.json_values import VALUES_LIMIT, decode
from reileta.unicode import BOM

I = TypeVar("I", bound=Input)  # noqa: E741 - the input of an operation

Method = Literal["GET", "PUT", "POST", "PATCH", "DELETE"]
Api = Literal["registry", "session"]
"""The API that an operation belongs to. In the session API, the fields of an answer stand beside
`message` instead of in `data`, credentials are accepted in the `Authorization` header only, and
credentials and roles are checked before rate limits."""
Only = Literal["client", "autopilot", "admin", "server"]
"""The kind of callers that an operation is for. Such an operation needs a credential: `server` that
of another server (others get error 136), the other kinds that of such a user (others get 403)."""
Serve = Callable[[Request, Mapping[str, str]], Awaitable[Answer | Response]]
"""Serves the requests of one operation. The mapping holds the variable parts of the path."""
Need = Literal["none", "optional", "required"]
"""Whether an operation needs a credential: `none` ignores it, `optional` checks it if there is one,
`required` refuses requests without one (code 3)."""

GuestAccess = Literal["yes", "own", "no"]
"""Whether guests may call an operation; those who may not get error 129. `own`: only if guests can
own worlds and instances here (`--guests-own`)."""

COLLECTIONS: Final = frozenset(
    {
        *("/api/server", "/api/users", "/api/worlds", "/api/services", "/api/instances"),
        "/api/worlds/<ref>/assets",
    }
)
"""The paths that may be followed by `@ADDRESS`, which means the same as `?server=ADDRESS`."""
OF_SERVERS: Final = frozenset(
    {"server", "time", "users", "worlds", "services", "instances", "audit"}
)
"""The collections whose objects can be of another server."""
BODY_VALUES: Final = VALUES_LIMIT + 64
"""Limit of JSON values in a body: those of a document, and 64 around it."""
VIA: Final = "avr/"
"""How the name of a server begins in the header `Via`: `Via: avr/a.example`. Servers send it with
requests that they pass on for a user."""
DEPRECATION: Final = "@1767225600"
"""Value of the `Deprecation` header: since when `?authuser` is deprecated (RFC 9745)."""


@dataclass(frozen=True, slots=True)
class ApiDeps:
    """Dependencies of every endpoint."""

    node: Node
    auth: Auth
    limits: HttpRateLimits
    answers: AnswerCache = field(default_factory=AnswerCache)

    @property
    def exact_limits(self) -> ExactLimits:
        """Limits on logins and the like, at all nodes of a cluster."""
        return ExactLimits(self.limits)

    @property
    def remote(self) -> RemoteObjects:
        """Reads objects of other servers."""
        return RemoteObjects(self.node, self.limits)

    async def session_ended(self, session_id: str) -> None:
        """Call after the store has ended a session: its tokens stop working at once, its sockets
        are closed and its players leave."""
        self.auth.forget_session(session_id)
        self.node.sessions.end(session_id)

    def token_revoked(self, token: bytes) -> None:
        """Call after the store has killed the token of that id: its keys stop working at once, and
        the sockets that used it are closed."""
        self.auth.forget_token(token)
        self.node.sessions.end_token(token)


@dataclass(slots=True)
class RequestContext:
    """One request, as a handler sees it.

    Attributes:
        principal: the user who sent the request; None without a credential, and for servers.
        server: the other server that sent the request; None if it was not one.
        args: the variable parts of the path.
        ip: the address of the client.
    """

    request: Request
    principal: Principal | None
    args: Mapping[str, str]
    ip: str
    authenticate: Callable[[], Awaitable[Principal | None]] | None = field(default=None, repr=False)
    """Authenticates the request's credential again, and checks `Operation.only`."""
    audit: AuditNote = field(default_factory=AuditNote)
    """What the audit log says about the request, if an admin sent it."""
    server: ServerPrincipal | None = None

    async def renew(self) -> None:
        """Authenticates the caller again, after work that can take long.

        A slow client can send its body for hours, and hashing can wait in a queue. In the meantime
        a session can end, and an admin can lose its role. So code that waits for the client or for
        a hash calls this before it continues: JSON bodies (`Routes`), files (`uploads.receive`),
        passwords (`PasswordCheck`). Then `principal` and `user` are up to date, and the handler
        checks permissions with them. It needs no query while nothing changed.

        Raises CredentialInvalid if the token or its session has ended, and PermissionDenied if the
        user may not call the operation any more.
        """
        if (self.principal is None and self.server is None) or self.authenticate is None:
            return
        self.principal = await self.authenticate()
        if self.principal is None and self.server is None:
            raise CredentialInvalid  # a cookie that was valid when the request arrived

    @property
    def secure(self) -> bool:
        """Whether the client reaches the server, or the proxy in front of it, over TLS."""
        return self.request.scheme == "https"

    @property
    def user(self) -> User | None:
        """The user who sent the request, if it has a credential."""
        return None if self.principal is None else self.principal.user

    @property
    def by(self) -> Principal:
        """The principal who sent the request. Raises NotLoggedIn if there is none."""
        if self.principal is None:
            raise NotLoggedIn
        return self.principal

    @property
    def admin(self) -> bool:
        """Whether an admin of this server sent the request."""
        return self.principal is not None and self.principal.administers

    @property
    def by_server(self) -> ServerPrincipal:
        """The other server that sent the request. Raises ServerNotKnown if it was not one."""
        if self.server is None:
            raise ServerNotKnown
        return self.server

    @property
    def from_elsewhere(self) -> bool:
        """Whether another server sent the request, a guest, or a server that passes it on for a
        user. Such a request is never passed on: that is what stops loops."""
        if self.server is not None or (self.principal is not None and self.principal.guest):
            return True
        named = ",".join(self.request.headers.getlist("Via"))
        return any(one.strip().lower().startswith(VIA) for one in named.split(","))


@dataclass(frozen=True, slots=True)
class Upload:
    """A request body that is a file: the body itself, or the field `file` of a multipart form."""

    kind: str
    """The content type of the file itself, for the documentation."""
    description: str


@dataclass(frozen=True, slots=True)
class Download:
    """An answer that is a file. The handler returns the `Response` itself."""

    kind: str
    ranges: bool = False
    """Whether `Range` is supported."""


@dataclass(slots=True)
class HttpReply:
    """An answer with additional headers."""

    data: object
    headers: Mapping[str, str] | Headers = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """The declaration of an endpoint. `path` is in Werkzeug's notation."""

    method: Method
    path: str
    name: str
    noun: str
    summary: str
    description: str
    takes: type[Input] | None
    invalid: type[InvalidInput]
    gives: Any
    rate: Rate
    need: Need = "optional"
    errors: tuple[type[ReiletaError], ...] = ()
    uploads: Upload | None = None
    only: Only | None = None
    api: Api = "registry"
    body_limit_bytes: int | None = None
    cached: Cached | None = None
    remote: Any = None

    body: bool | None = None
    audited: bool | None = None
    guests: GuestAccess | None = None
    about_guests: bool = False
    temporary: bool | None = None

    @property
    def temporary_access(self) -> bool:
        """Whether temporary accounts may call it: if it reads, if guests may call it, or if
        `temporary` is set."""
        if self.temporary is not None:
            return self.temporary
        return self.method == "GET" or self.guest_access == "yes"

    @property
    def guest_access(self) -> GuestAccess:
        """Whether guests may call it. They read what everybody may read, unless it says more."""
        if self.guests is not None:
            return self.guests
        reads = self.method == "GET" and self.api == "registry"
        return "yes" if reads and self.only is None and self.need != "required" else "no"

    @property
    def is_audited(self) -> bool:
        """Whether it goes into the audit log when an admin calls it."""
        return self.method != "GET" if self.audited is None else self.audited

    @property
    def of_server(self) -> bool:
        """Whether it is about an object that can be of another server (`api/http/remote.py`)."""
        noun = f"{self.path}//".split("/")[2]
        return noun in OF_SERVERS and ServerNotFound in self.errors

    @property
    def takes_body(self) -> bool:
        """Whether the input is a JSON body. If not, it is the query."""
        if self.takes is None:
            return False
        return self.method in ("PUT", "POST", "PATCH") if self.body is None else self.body


class Options(TypedDict, total=False):
    """The optional parts of a declaration; see `Routes.add`."""

    need: Need
    errors: tuple[type[ReiletaError], ...]
    rate: Rate
    uploads: Upload | None
    only: Only | None
    body_limit_bytes: int | None
    cached: Cached | None
    remote: Any
    body: bool | None
    audited: bool | None
    guests: GuestAccess
    about_guests: bool
    temporary: bool
    name: str


class Routes:
    """The endpoints of one noun: a Quart blueprint and its operations.

    Args:
        noun: the tag of the endpoints in `/openapi.json`. Clients are generated from it, so a
            published tag does not change.
        invalid: the error for input that is not valid.
    """

    def __init__(
        self,
        noun: str,
        deps: ApiDeps,
        *,
        invalid: type[InvalidInput] = AuthInvalid,
        api: Api = "registry",
    ) -> None:
        self._api = api
        self.blueprint = Blueprint(noun, __name__)
        self.operations: list[Operation] = []
        self.serves: dict[str, Serve] = {}
        """The functions that serve the operations, by Quart's endpoint name."""
        self._noun = noun
        self._deps = deps
        self._invalid = invalid

    @overload
    def add(
        self,
        method: Method,
        path: str,
        *,
        summary: str,
        gives: Any,
        takes: None = None,
        **options: Unpack[Options],
    ) -> Callable[
        [Callable[[RequestContext], Awaitable[object]]],
        Callable[[RequestContext], Awaitable[object]],
    ]: ...

    @overload
    def add(
        self,
        method: Method,
        path: str,
        *,
        summary: str,
        gives: Any,
        takes: type[I],
        **options: Unpack[Options],
    ) -> Callable[
        [Callable[[RequestContext, I], Awaitable[object]]],
        Callable[[RequestContext, I], Awaitable[object]],
    ]: ...

    def add(
        self,
        method: Method,
        path: str,
        *,
        summary: str,
        gives: Any,
        takes: type[Input] | None = None,
        **options: Unpack[Options],
    ) -> Callable[[Callable[..., Awaitable[object]]], Callable[..., Awaitable[object]]]:
        """Declares an endpoint. The handler's docstring becomes its description in the docs.

        Args:
            gives: the type of the answer's `data`: a view, a number or a list of views; a tuple of
                types if it is one of several; a `Download`.
            takes: the model of the input, which is the body of PUT, POST and PATCH, and the query
                of other methods.
            need: whether the endpoint needs a credential; by default it is optional.
            errors: the errors that the handler raises. The documentation adds those of every
                endpoint (credentials, limits, input, outages).
            rate: rate limit of this route, per address; by default `READ` or `WRITE`.
            uploads: the file in the body, which the handler reads itself (`api/http/uploads.py`).
            only: the kind of users that may call it; others get 403.
            body_limit_bytes: limit of the body; None: as in the settings.
            remote: for reads of public objects: the type of the answer's `data` if it comes from
                another server. None: the other server itself must be asked.
            body: whether the input is the body; None: as the method says.
            cached: for reads: the tables that the answer is made of. The answer then has an entity
                tag, and is cached until one of these changes.
            audited: whether the audit log has it when an admin calls it; None: unless it only
                reads. False is for the daily use of one's own account.
            about_guests: whether `<ref>` can be a guest, of whom this server has its own answer.
            guests: whether guests may call it; by default they may read what needs no credential.
            temporary: whether temporary accounts may call it; by default if it reads, or if guests
                may.
            name: the `operationId` in `/openapi.json`; by default the handler's name. Clients are
                generated from it, so it stays when a handler is renamed.
        """
        options.setdefault("rate", READ if method == "GET" else WRITE)

        def declare(handler: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
            options.setdefault("name", handler.__name__)
            operation = Operation(
                method=method,
                path=path,
                noun=self._noun,
                summary=summary,
                description=" ".join((handler.__doc__ or "").split()),
                takes=takes,
                invalid=self._invalid,
                gives=gives,
                api=self._api,
                **options,
            )
            self.operations.append(operation)
            serve = _serve(operation, handler, self._deps)
            self.serves[f"{self._noun}.{operation.name}"] = serve
            view = _view(serve)
            for rule in (path, f"{path}@<server>") if path in COLLECTIONS else (path,):
                self.blueprint.add_url_rule(
                    rule, endpoint=operation.name, view_func=view, methods=[method]
                )
            return handler

        return declare


def _view(serve: Serve) -> Callable[..., Awaitable[Response]]:
    """The view function for Quart."""

    async def view(**args: str) -> Response:
        # Resolve the proxy once: each use of it reads a context variable.
        answer = await serve(request._get_current_object(), args)  # type: ignore[attr-defined]
        return answer if isinstance(answer, Response) else response_of(answer)

    return view


def _serve(operation: Operation, handler: Callable[..., Awaitable[object]], deps: ApiDeps) -> Serve:
    """The function that serves an operation: limits, credential, input, handler, envelope."""
    node, auth, limits, answers = deps.node, deps.auth, deps.limits, deps.answers
    exact_limits = deps.exact_limits if ExactLimits.counts(operation.rate) else None
    route = f"{operation.method} {operation.path}"
    takes, invalid, takes_body = operation.takes, operation.invalid, operation.takes_body
    need, rate, only, api = operation.need, operation.rate, operation.only, operation.api
    cached, audited = operation.cached, operation.is_audited
    guests = operation.guest_access
    if guests == "own" and node.settings.guests_own:
        guests = "yes"
    temporary = operation.temporary_access
    of_server, remote = operation.of_server, deps.remote
    enveloped: Any = success_at_top if api == "session" else success

    async def serve(current: Request, args: Mapping[str, str]) -> Answer | Response:
        ip = address_of(current)
        if api == "registry":
            limits.route(route, rate, ip)
            if exact_limits is not None:
                await exact_limits.route(route, ip, rate)
        elsewhere = named_server(current, args, node.address) if of_server else None
        principal = server = credential = None
        if need != "none" or elsewhere is not None:
            credential = bearer_from(current) if api == "session" else auth.credential_from(current)
            if credential is not None and credential.of_server and api == "registry":
                server = await auth.authenticate_server(credential.token)
                limits.server(server)
            elif credential is not None:
                principal = await authenticated(credential)
            if only == "server":
                if server is None:
                    raise ServerNotKnown
            elif principal is None and (need == "required" or only is not None):
                raise NotLoggedIn
        if api == "session":
            limits.address(ip)
            limits.route(route, rate, ip)
            if exact_limits is not None:
                await exact_limits.route(route, ip, rate)
        if principal is not None:
            limits.principal(principal)
        if operation.body_limit_bytes is not None:
            cast(ReceivedBody, current.body).allow(operation.body_limit_bytes)
        deprecated = credential is not None and credential.deprecated
        headers = [(b"deprecation", DEPRECATION.encode())] if deprecated else []
        call = RequestContext(
            current, principal, args, ip, partial(authenticated, credential), server=server
        )
        data = None
        if elsewhere is not None and operation.about_guests:
            elsewhere = None if await remote.knows_guest(call, operation, elsewhere) else elsewhere
        if elsewhere is not None:
            data = await remote.answer(call, operation, elsewhere)
        elif cached is not None:
            key = key_of(
                operation.name,
                principal,
                current.query_string,
                args,
                scheme=current.scheme,
                gateway=gateway_of(current),
            )
            data = await answers.data(
                key, cached.generation(node), call.user, lambda: handled(call)
            )
        if data is not None:
            if cached is not None:
                headers += data.headers(private=need != "none" or elsewhere is not None)
                if data.is_known(current.headers.get("If-None-Match")):
                    return Answer(304, headers, b"")
            body = success(line_of(current), node.clock.now_ms(), data.raw)
            return json_answer(body, 200, headers)
        answer = await handled(call)
        if type(answer) is HttpReply:
            headers += encoded(answer.headers)
            answer = answer.data
        if isinstance(answer, Response):
            answer.headers.extend([(name.decode(), value.decode()) for name, value in headers])
            return answer
        body = enveloped(line_of(current), node.clock.now_ms(), answer)
        return json_answer(body, 200, headers)

    async def authenticated(credential: Credential | None) -> Principal | None:
        if credential is not None and credential.of_server and api == "registry":
            await auth.authenticate_server(credential.token)
            return None
        principal = await auth.authenticate(credential)
        if principal is not None and principal.guest and guests != "yes":
            raise GuestNotAllowed
        if principal is not None and not temporary:
            ensure_not_temporary(principal.user)
        if principal is not None and only is not None and only != "server":
            ensure_only(principal, only)
        return principal

    async def handled(call: RequestContext) -> object:
        if takes is None:
            return await recorded(call)
        if takes_body:
            fields = await body_of(call.request, invalid)
            if isinstance(call.request.body, ReceivedBody):
                limits.body(call.ip, call.request.body.held_bytes)
            await call.renew()  # the body may have taken long
        else:
            fields = {**call.request.args.to_dict()}  # the first value of each key
        return await recorded(call, check(takes, fields, invalid))

    async def recorded(call: RequestContext, *params: Input) -> object:
        """Calls the handler. If an admin called, the audit log has it, before it takes effect."""
        if not audited or not call.admin:
            return await handler(call, *params)
        return await audit(
            node.store.audit,
            call.audit.begun(call.args, *params),
            operation.name,
            via="http",
            by=call.by,
            act=lambda: handler(call, *params),
        )

    return serve


def ensure_only(principal: Principal | None, only: Only) -> None:
    """Raises NotLoggedIn without a principal, GuestNotAllowed for a guest, and PermissionDenied if
    the principal is not of that kind."""
    if principal is None:
        raise NotLoggedIn
    if principal.guest:
        raise GuestNotAllowed
    meets: dict[Only, bool] = {
        "client": not principal.user.autopilot,
        "autopilot": principal.user.autopilot,
        "admin": principal.administers,
        "server": False,
    }
    if not meets[only]:
        raise PermissionDenied


def address_of(current: BaseRequestWebsocket) -> str:
    """The address of the client: that of the connection, or the one that a trusted proxy reports
    (`api/listen/forwarded.py`)."""
    client = current.scope.get("client")
    return client[0] if client else "local"


def line_of(current: BaseRequestWebsocket) -> str:
    """The field `request` of the envelope."""
    raw_path = current.scope.get("raw_path")
    path = raw_path.decode("ascii", "replace") if raw_path else current.path
    return request_line(path, current.query_string.decode("ascii", "replace"))


async def body_of(current: Request, invalid: type[InvalidInput]) -> Mapping[str, object]:
    """The JSON object in a request's body; an empty object if there is no body.

    Raises MediaTypeUnsupported for another content type and for a compressed body, `invalid` if the
    body is not a JSON object that can be stored unchanged (`json_values.decode`), and
    PayloadTooLarge.
    """
    kind = current.mimetype
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise MediaTypeUnsupported.field("Content-Type", "must be application/json")
    body: bytes = await current.get_data(cache=True, as_text=False, parse_form_data=False)
    if not body.removeprefix(BOM):
        return {}  # some clients send a content type without a body
    ensure_not_encoded(current)
    value = decode(body, limit_bytes=len(body), values_limit=BODY_VALUES, error=invalid)
    if not isinstance(value, dict):
        raise invalid.field("body", "must be a JSON object")
    return value
