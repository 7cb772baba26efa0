"""Operations: one declaration of an endpoint, from which come its route, its checks and its docs.

A noun's file makes a `Routes` and declares each endpoint on it with what it takes and gives. The
same pydantic model checks the input and describes it in `/openapi.json`; the same msgspec struct
encodes the answer and describes it there. So the two can't drift apart.

A handler parses nothing and encodes nothing: it gets a `RequestContext` and the checked input, and
returns a view (or a `Reply`, to add headers). It raises `ReiletaError`s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, TypedDict, TypeVar, Unpack, cast, overload

from quart import Blueprint, Response, request
from quart.wrappers import Request
from quart.wrappers.base import BaseRequestWebsocket

from api.credentials import Auth, Credential, bearer_from, credential_from
from api.envelope import request_line, success, success_at_top
from api.http.answer import Answer, encoded, json_answer, response_of
from api.http.bodies import ReceivedBody
from api.http.etags import AnswerCache, Cached, key_of
from api.node_api import NodePort
from api.rate_limits import READ, WRITE, HttpRateLimits
from reileta.errors import (
    AuthInvalid,
    CredentialInvalid,
    InvalidInput,
    MediaTypeUnsupported,
    NotLoggedIn,
    PermissionDenied,
    ReiletaError,
)
from reileta.protocol.input_types import Input, check
from reileta.records import User
from reileta.rules.instance.access import Principal
from reileta.rules.ratelimit import Rate
from reileta.rules.resource.json_values import VALUES_LIMIT, decode

I = TypeVar("I", bound=Input)  # noqa: E741 - the input of an operation

Method = Literal["GET", "PUT", "POST", "PATCH", "DELETE"]
Face = Literal["registry", "session"]
"""Whose manners an operation has: R's, or S's. S's answers stand beside `message`, its credentials
are headers, and it judges credentials and roles before anything else (S "Common Endpoint
Behaviour")."""
Only = Literal["client", "autopilot", "admin"]
"""The only users that an operation is for; it needs a credential then (S, 403)."""
Serve = Callable[[Request, Mapping[str, str]], Awaitable[Answer | Response]]
"""What answers the requests of one operation, given the variable parts of the path."""
Need = Literal["none", "optional", "required"]
"""Whether an operation looks at credentials: never; when one is sent; always (else code 3)."""

BODY_VALUES: Final = VALUES_LIMIT + 64
"""Values in a body: those of a document, and what stands around it."""
DEPRECATION: Final = "@1767225600"
"""Since when `?authuser` is deprecated, as RFC 9745 writes it."""


@dataclass(frozen=True, slots=True)
class ApiDeps:
    """What every handler is built with."""

    node: NodePort
    auth: Auth
    limits: HttpRateLimits
    answers: AnswerCache = field(default_factory=AnswerCache)


@dataclass(slots=True)
class RequestContext:
    """One request, as a handler sees it. `args` are the variable parts of the path."""

    request: Request
    principal: Principal | None
    args: Mapping[str, str]
    ip: str
    authenticate: Callable[[], Awaitable[Principal | None]] | None = field(default=None, repr=False)
    """Authenticates the request's credential, and checks the users that the operation is for."""

    async def renew(self) -> None:
        """Authenticates the asker anew, after something that took its time.

        A client decides how long its body takes, and hashing can wait in line. Meanwhile a session
        can end, and an admin can lose its role. So whatever waits for the client or for a hash
        renews the call before it goes on: JSON bodies (`Routes`), files (`uploads.receive`),
        passwords (`PasswordCheck`). Afterwards `principal` and `user` are what they are now, and
        the handler judges by these what the asker may do. Costs no query while nothing changed.

        Raises CredentialInvalid when the token or its session has ended, and PermissionDenied when
        the operation is no longer for this user.
        """
        if self.principal is None or self.authenticate is None:
            return
        self.principal = await self.authenticate()
        if self.principal is None:
            raise CredentialInvalid  # a cookie that was good when the request came

    @property
    def user(self) -> User | None:
        """Who asks, if anybody."""
        return None if self.principal is None else self.principal.user

    @property
    def by(self) -> Principal:
        """Who asks. Raises `NotLoggedIn`."""
        if self.principal is None:
            raise NotLoggedIn
        return self.principal

    @property
    def admin(self) -> bool:
        """Whether an admin of this server asks."""
        return self.principal is not None and self.principal.user.admin and not self.principal.guest


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that is a file, not JSON: as it is, or as the field `file` of a multipart form."""

    kind: str
    """The content type of the file itself, for the documentation."""
    description: str


@dataclass(frozen=True, slots=True)
class Download:
    """An answer that is a file: the handler gives the `Response` itself."""

    kind: str
    ranges: bool = False
    """Whether a part of it can be asked for."""


@dataclass(slots=True)
class Reply:
    """An answer with headers of its own."""

    data: object
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """An endpoint, as its documentation describes it. `path` is in Werkzeug's notation."""

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
    face: Face = "registry"
    body_limit_bytes: int | None = None
    shows: Cached | None = None

    body: bool | None = None

    @property
    def takes_body(self) -> bool:
        """Whether the input is a JSON body; else it is the query."""
        if self.takes is None:
            return False
        return self.method in ("PUT", "POST", "PATCH") if self.body is None else self.body


class Options(TypedDict, total=False):
    """What a declaration may say of an endpoint beside what all must; see `Routes.add`."""

    need: Need
    errors: tuple[type[ReiletaError], ...]
    rate: Rate
    uploads: Upload | None
    only: Only | None
    body_limit_bytes: int | None
    shows: Cached | None
    body: bool | None


class Routes:
    """The endpoints of one noun: a Quart blueprint, and the operations that it serves."""

    def __init__(
        self,
        noun: str,
        edge: ApiDeps,
        *,
        invalid: type[InvalidInput] = AuthInvalid,
        face: Face = "registry",
    ) -> None:
        self._face = face
        self.blueprint = Blueprint(noun, __name__)
        self.operations: list[Operation] = []
        self.serves: dict[str, Serve] = {}
        """What serves each of them, by the endpoint's name at Quart."""
        self._noun = noun
        self._edge = edge
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
        """Declares an endpoint; the decorated handler's docstring is its description.

        Args:
            gives: the type of the answer's `data`: a view, a number, a list of views; a tuple of
                types for one of them; a `Download`.
            takes: the input, from the body for PUT and POST, from the query otherwise.
            errors: what the handler itself refuses with; those that every endpoint shares
                (credentials, limits, input, outages) are added by the documentation.
            rate: of this route, per address; by default `READ` or `WRITE`. uploads: the file that
            the body is, which the handler reads itself (`api/http/uploads.py`). only: the users it
            is for; others get 403. body_limit_bytes: how large its body may be; None: as large as
            the settings say. body: whether the input is the body; None: of PUT, POST and PATCH it
            is. shows: for a read that changes nothing: what its answer is made of.
            Answers then have an
                entity tag, and are remembered until that changes.
        """
        options.setdefault("rate", READ if method == "GET" else WRITE)

        def declare(handler: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
            operation = Operation(
                method=method,
                path=path,
                name=handler.__name__,
                noun=self._noun,
                summary=summary,
                description=" ".join((handler.__doc__ or "").split()),
                takes=takes,
                invalid=self._invalid,
                gives=gives,
                face=self._face,
                **options,
            )
            self.operations.append(operation)
            serve = _serve(operation, handler, self._edge)
            self.serves[f"{self._noun}.{operation.name}"] = serve
            self.blueprint.add_url_rule(
                path,
                endpoint=handler.__name__,
                view_func=_view(serve),
                methods=[method],
            )
            return handler

        return declare


def _view(serve: Serve) -> Callable[..., Awaitable[Response]]:
    """The function that Quart calls."""

    async def view(**args: str) -> Response:
        # The proxy is followed once: it costs a context variable each time.
        answer = await serve(request._get_current_object(), args)  # type: ignore[attr-defined]
        return answer if isinstance(answer, Response) else response_of(answer)

    return view


def _serve(operation: Operation, handler: Callable[..., Awaitable[object]], edge: ApiDeps) -> Serve:
    """The operation itself: limits, credential, input, handler, envelope."""
    node, auth, limits, answers = edge.node, edge.auth, edge.limits, edge.answers
    route = f"{operation.method} {operation.path}"
    takes, invalid, takes_body = operation.takes, operation.invalid, operation.takes_body
    need, rate, only, face = operation.need, operation.rate, operation.only, operation.face
    shows = operation.shows
    enveloped: Any = success_at_top if face == "session" else success

    async def serve(current: Request, args: Mapping[str, str]) -> Answer | Response:
        ip = address_of(current)
        if face == "registry":
            limits.route(route, rate, ip)
        principal = credential = None
        if need != "none":
            credential = bearer_from(current) if face == "session" else credential_from(current)
            if credential is not None:
                principal = await authenticated(credential)
            if principal is None and need == "required":
                raise NotLoggedIn
            if principal is None and only is not None:
                raise NotLoggedIn
        if face == "session":
            limits.address(ip)
            limits.route(route, rate, ip)
        if principal is not None:
            limits.principal(principal)
        if operation.body_limit_bytes is not None:
            cast(ReceivedBody, current.body).allow(operation.body_limit_bytes)
        deprecated = credential is not None and credential.deprecated
        headers = [(b"deprecation", DEPRECATION.encode())] if deprecated else []
        call = RequestContext(current, principal, args, ip, partial(authenticated, credential))
        if shows is not None:
            key = key_of(operation.name, principal, current.query_string, args)
            data = await answers.data(key, shows.generation(node), call.user, lambda: handled(call))
            headers += data.headers(private=need != "none")
            if data.is_known(current.headers.get("If-None-Match")):
                return Answer(304, headers, b"")
            body = success(line_of(current), node.clock.now_ms(), data.raw)
            return json_answer(body, 200, headers)
        answer = await handled(call)
        if type(answer) is Reply:
            headers += encoded(answer.headers)
            answer = answer.data
        if isinstance(answer, Response):
            answer.headers.extend([(name.decode(), value.decode()) for name, value in headers])
            return answer
        body = enveloped(line_of(current), node.clock.now_ms(), answer)
        return json_answer(body, 200, headers)

    async def authenticated(credential: Credential | None) -> Principal | None:
        principal = await auth.authenticate(credential)
        if principal is not None and only is not None:
            ensure_only(principal, only)
        return principal

    async def handled(call: RequestContext) -> object:
        if takes is None:
            return await handler(call)
        if takes_body:
            given = await body_of(call.request, invalid)
            if isinstance(call.request.body, ReceivedBody):
                limits.body(call.ip, call.request.body.held_bytes)
            await call.renew()  # the client may have taken its time
        else:
            given = {**call.request.args.to_dict()}  # of a key that is given twice, the first
        return await handler(call, check(takes, given, invalid))

    return serve


def ensure_only(principal: Principal | None, only: Only) -> None:
    """Raises NotLoggedIn, and PermissionDenied for users that something is not for."""
    if principal is None:
        raise NotLoggedIn
    meets = {
        "client": not principal.user.autopilot,
        "autopilot": principal.user.autopilot,
        "admin": principal.user.admin and not principal.guest,
    }
    if not meets[only]:
        raise PermissionDenied


def address_of(current: BaseRequestWebsocket) -> str:
    """The address that the connection comes from; a header could be forged."""
    client = current.scope.get("client")
    return client[0] if client else "local"


def line_of(current: BaseRequestWebsocket) -> str:
    """The envelope's `request`."""
    raw_path = current.scope.get("raw_path")
    path = raw_path.decode("ascii", "replace") if raw_path else current.path
    return request_line(path, current.query_string.decode("ascii", "replace"))


async def body_of(current: Request, invalid: type[InvalidInput]) -> Mapping[str, object]:
    """The JSON object in a request's body.

    Raises `MediaTypeUnsupported` for a body that says to be something else, and `invalid` and
    `PayloadTooLarge` for what is no JSON object that can be kept as it is (`jsonvalues.decode`).
    (Quart refuses a body over the limit before this sees it.)
    """
    kind = current.mimetype
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise MediaTypeUnsupported.field("Content-Type", "must be application/json")
    body: bytes = await current.get_data(cache=True, as_text=False, parse_form_data=False)
    if not body and (not kind or current.method == "DELETE"):
        return {}  # who has nothing to say need not say so; some clients always name the type
    given = decode(body, limit_bytes=len(body), values_limit=BODY_VALUES, error=invalid)
    if not isinstance(given, dict):
        raise invalid.field("body", "must be a JSON object")
    return given
