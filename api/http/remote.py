"""Requests about objects of other servers: `?server=ADDRESS`, `id@ADDRESS`, `/api/users@ADDRESS`.

Reads of public objects are passed on to the other server. All other requests are answered with the
address to send them to (`Redirected`): there the user has to prove who it is.

| who asks | answer |
|---|---|
| a user of this server | the object, or the redirect |
| nobody in particular | error 3 |
| another server, a guest, or a server that passes a request on (`Via`) | error 5: this server \
answers only for itself, so that no request goes in circles |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
from quart.wrappers import Request

from actors.node import Node
from api.http.etags import Data
from api.rate_limits import HttpRateLimits
from reileta.errors import (
    AssetNotFound,
    BadData,
    BadRedirect,
    InstanceNotFound,
    MalformedData,
    NoData,
    NoResponse,
    NotFound,
    NotLoggedIn,
    Redirected,
    ReiletaError,
    ServerBlocked,
    ServerNotFound,
    ServiceNotFound,
    UserNotFound,
    WorldNotFound,
)
from reileta.federation.client import path_of
from reileta.federation.remote_reads import Query, Read
from reileta.ids import At, at, is_id, is_instance_name, is_service_id, is_user_at, is_username
from reileta.protocol.input_types import check
from reileta.protocol.views.registry import WorldView
from reileta.rules.federation.addresses import canonical
from reileta.rules.federation.remote_objects import CURSOR, Question, host_of_url
from reileta.rules.identity import ensure_not_temporary

if TYPE_CHECKING:
    from api.http.endpoint import Operation, RequestContext

_PART: Final = re.compile(r"<(\w+)>")
_REFS: Final[Mapping[str, tuple[Callable[[str], bool], type[NotFound]]]] = {
    "users": (
        lambda ref: is_id(ref, "u") or is_username(ref) or ref in ("@server", "@admin"),
        UserNotFound,
    ),
    "worlds": (lambda ref: is_id(ref, "w"), WorldNotFound),
    "instances": (lambda ref: is_id(ref, "i") or is_instance_name(ref), InstanceNotFound),
    "services": (is_service_id, ServiceNotFound),
}
"""For each collection: the references that can exist there, and the error for others."""
_ME: Final = "@me"
REMOTE_ERRORS: Final[tuple[type[ReiletaError], ...]] = (
    NoResponse,
    NoData,
    BadData,
    BadRedirect,
    MalformedData,
    ServerBlocked,
)
"""The errors of a read of another server."""


def servers_named(request: Request, args: Mapping[str, str]) -> tuple[str, ...]:
    """The texts of `?server` and of a collection's `@ADDRESS`: none, one or both."""
    query = request.query_string
    if not query and not args:
        return ()
    # Parse the query only if the name can be in it.
    asked = request.args.get("server") if b"server" in query or b"%" in query else None
    return tuple(text for text in (asked, args.get("server")) if text is not None)


def named_server(request: Request, args: Mapping[str, str], own: str) -> str | None:
    """The canonical address of the other server that a request is about; None if it is this one.

    `args` are the variable parts of the path. Raises ServerNotFound if something else than an
    address is in its place, or if the request names two servers.
    """
    texts: list[str | None] = [*servers_named(request, args)]
    if "ref" in args:
        texts.append(At.parse(args["ref"]).server)
    if not texts:
        return None
    try:
        named = {canonical(text) for text in texts if text is not None}
    except ValueError:
        raise ServerNotFound from None
    if len(named) > 1:
        raise ServerNotFound
    server = next(iter(named), own)
    return None if server == own else server


@dataclass(frozen=True, slots=True)
class RemoteObjects:
    """Answers requests about objects of other servers."""

    node: Node
    limits: HttpRateLimits

    async def answer(self, call: RequestContext, operation: Operation, server: str) -> Data:
        """The `data` of an operation's answer, about the objects of another server.

        Raises:
            ServerNotFound: the request comes from another server or from a guest.
            NotLoggedIn: it has no credential.
            PermissionDenied: it is of a temporary account.
            Redirected: the user has to ask the other server itself.
            ReiletaError: an error of `RemoteReads.read`, or of the input.
        """
        _ensure_own_user(call)
        args = {**call.args, "ref": At.parse(call.args.get("ref", "")).id}
        if operation.remote is None or (operation.noun == "users" and args["ref"] == _ME):
            raise await self.redirect(server)
        _ensure_possible(operation.path, args)
        query, question = self._question(call, operation, args)
        path = path_of(*(_filled(part, args) for part in operation.path.split("/")[1:]))
        passed = {error.code: error for error in (*operation.errors, operation.invalid)}
        passed.pop(ServerNotFound.code, None)
        return await self._read(call, Read(server, path, question, query, passed))

    async def knows_guest(self, call: RequestContext, operation: Operation, server: str) -> bool:
        """Whether an operation is about a guest, for whom this server answers itself.

        It does so while the guest is here, and always where the other server is not asked: for
        admins, for requests from elsewhere, and for nobody in particular.
        """
        name = str(At(At.parse(call.args["ref"]).id, server))
        if not is_user_at(name) or self.node.servers.is_blocked(server):
            return False
        guest = await self.node.store.guests.get(name)
        if guest is None:
            return False
        asked = not call.from_elsewhere and call.principal is not None and operation.only is None
        return not asked or bool(await self.node.store.guests.live_tokens(guest.user))

    async def redirect(self, server: str) -> Redirected:
        """The error that names the other server's gateway. Raises ServerBlocked."""
        self.node.servers.ensure_allowed(server)
        source = await self.node.remote_reads.source(server)
        address = host_of_url(source.gateways.http, source.secure) or server
        return Redirected(address, secure=source.secure)

    async def world(self, call: RequestContext, reference: At) -> WorldView:
        """A world of another server, by a reference with that server, without a version.

        Raises as `answer`, and WorldNotFound.
        """
        _ensure_own_user(call)
        assert reference.server is not None
        path = path_of("api", "worlds", reference.id)
        passed: dict[int, type[ReiletaError]] = {WorldNotFound.code: WorldNotFound}
        question = Question(WorldView, reference.id)
        data = await self._read(call, Read(reference.server, path, question, errors=passed))
        return msgspec.json.decode(data.raw, type=WorldView)

    async def _read(self, call: RequestContext, wanted: Read) -> Data:
        self.limits.remote_read(call.by)
        data = await self.node.remote_reads.read(wanted, call.by.user.id)
        return Data(data.raw, data.tag)

    def _question(
        self, call: RequestContext, operation: Operation, args: Mapping[str, str]
    ) -> tuple[Query, Question]:
        """The query for the other server, and what must come back."""
        variable = _PART.fullmatch(operation.path.rpartition("/")[2])
        asked = None if variable is None else args[variable[1]]
        ref = None if asked is None or asked.startswith("@") else asked
        if operation.takes is None:
            return (), Question(operation.remote, ref)
        fields = {**call.request.args.to_dict()}
        after = fields.pop("after", None)  # a place in the other server's list, in its form
        if after is not None and CURSOR.fullmatch(after) is None:
            raise operation.invalid.field("after", "must be `next` of an answer of the same list")
        params = check(operation.takes, fields, operation.invalid)
        query = [] if after is None else [("after", after)]
        for name in type(params).model_fields:
            value = getattr(params, name)
            if value and name not in ("server", "after"):
                query.append((name, self._text(call, value)))
        limit, offset = getattr(params, "limit", 0), getattr(params, "offset", 0)
        return query, Question(operation.remote, ref, limit=limit, offset=offset)

    def _text(self, call: RequestContext, value: object) -> str:
        """A value of the query, as the other server understands it."""
        if value == _ME:
            return at(call.by.user.id, self.node.address)
        return "true" if value is True else str(value)


def _ensure_own_user(call: RequestContext) -> None:
    if call.from_elsewhere:
        raise ServerNotFound
    if call.principal is None:
        raise NotLoggedIn
    ensure_not_temporary(call.principal.user)


def _ensure_possible(path: str, args: Mapping[str, str]) -> None:
    """Raises the error of an object that does not exist, if none can exist by that reference."""
    if "<ref>" in path:
        possible, error = _REFS[path.split("/")[2]]
        if not possible(args["ref"]):
            raise error
    if "<asset>" in path and not is_id(args["asset"], "f"):
        raise AssetNotFound


def _filled(part: str, args: Mapping[str, str]) -> str:
    variable = _PART.fullmatch(part)
    return part if variable is None else args[variable[1]]
