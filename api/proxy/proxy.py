"""The gateway: passes requests for the registry on to one of the registries behind it.

A request goes to the registry with the fewest requests in progress, of those that are ready. It is
sent again only if that can't carry it out twice: if no connection could be made; or, once, if it
changes nothing, has no body, and its connection ended before the answer began, or its registry is
lost before that. Then it goes to another registry, or, if the connection was a used one, on a new
connection.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from typing import Final, cast

import structlog
import trio
from quart.wrappers import Request

from api.http.answer import Answer
from api.http.bodies import ReceivedBody
from api.http.endpoint import address_of
from api.proxy.upstream import (
    Headers,
    Registry,
    UpstreamFailed,
    UpstreamRequest,
    tls_context,
)
from reileta.errors import Detail, NoResponse, Overloaded
from reileta.observability import log_events
from reileta.roles import EtaUrl
from reileta.rules.gateway import (
    CLIENT,
    GATEWAY,
    PROOF,
    TRACE,
    Passed,
    is_claimed,
    is_hop_by_hop,
    named_by_connection,
    proof,
)

CHECK_S: Final = 1.0
"""Seconds between two looks at a registry, and the time that it has to answer."""
MISSES: Final = 3
"""Looks in a row without an answer, after which a registry that takes connections counts as lost:
one that is busy for a moment is better than none."""
RETRY_AFTER_S: Final = 1.0
EXCHANGES: Final = 4096
"""Requests that are passed on at the same time. More are refused with 503."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN: Final = frozenset({"content-length", "expect", "remote-addr"})
_UNLIMITED: Final = 2**62
"""The registry checks the size of bodies."""

_log = structlog.get_logger()


class State(IntEnum):
    """What a registry's readiness showed last; the best come first.

    A registry that is not ready answers all the same, as well as it can.
    """

    READY = 0
    UNREADY = 1
    LOST = 2


class GatewayProxy:
    """Passes requests on. `watch` must run beside its use.

    Args:
        etas: where the registries are.
        gateway: returns the address that URLs in answers name.
        secret: proves to registries that this is a gateway; None: they go by its address.
        now_ms: the time that gateways and registries share.
        tls: for registries with `https://`; None: the system's certificates.
    """

    def __init__(
        self,
        etas: Sequence[EtaUrl],
        *,
        gateway: str,
        secret: bytes | None,
        now_ms: Callable[[], int],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if tls is None and any(eta.secure for eta in etas):
            tls = tls_context()
        self._states = {Registry(eta, tls): State.READY for eta in etas}
        self._repeatable: dict[Registry, set[trio.CancelScope]] = {
            one: set() for one in self._states
        }
        """The requests that wait for an answer and may be sent again, to another registry."""
        self._gateway = gateway
        self._secret = secret
        self._now_ms = now_ms

    @property
    def states(self) -> dict[str, State]:
        """The registries by their URLs."""
        return {str(registry): state for registry, state in self._states.items()}

    @property
    def exchanges(self) -> int:
        """Requests that are being passed on."""
        return sum(registry.outstanding for registry in self._states)

    def unready(self) -> str | None:
        """Why the gateway is not ready; None: it is."""
        lost = all(state is State.LOST for state in self._states.values())
        return "reaches no registry" if lost else None

    # Health ------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Looks at each registry every `CHECK_S`, until cancelled."""
        async with trio.open_nursery() as nursery:
            for registry in self._states:
                nursery.start_soon(self._watch, registry)

    def close(self) -> None:
        """Closes idle connections, and others as soon as they are idle."""
        for registry in self._states:
            registry.close()

    async def _watch(self, registry: Registry) -> None:
        missed = 0
        while True:
            state = await self._look(registry)
            missed = missed + 1 if state is None else 0
            if state is None:
                known_lost = self._states[registry] is State.LOST
                state = State.LOST if known_lost or missed >= MISSES else State.UNREADY
            self._note(registry, state)
            await trio.sleep(CHECK_S)

    async def _look(self, registry: Registry) -> State | None:
        """What a registry's readiness shows; None: it did not answer in time."""
        request = UpstreamRequest(
            "GET",
            b"/readyz",
            [(b"host", registry.authority), (b"user-agent", b"reileta-gateway")],
        )
        with trio.move_on_after(CHECK_S):
            try:
                answer = await registry.exchange(request)
            except UpstreamFailed as failed:
                return None if failed.sent else State.LOST
            return State.READY if answer.status == 200 else State.UNREADY
        return None

    def _note(self, registry: Registry, state: State) -> None:
        before, self._states[registry] = self._states[registry], state
        if before != state:
            log = _log.info if state is State.READY else _log.warning
            log(log_events.REGISTRY_CHANGED, registry=str(registry), state=state.name.lower())
            self._leave_lost()

    def _leave_lost(self) -> None:
        """Ends the waits for answers of lost registries, if another registry can answer: a stopped
        process keeps its connections open, and would let the requests wait."""
        if self._best(set()) is None:
            return
        for registry, state in self._states.items():
            if state is State.LOST:
                for scope in self._repeatable[registry]:
                    scope.cancel()

    def _best(self, tried: set[Registry]) -> Registry | None:
        able = [
            registry
            for registry, state in self._states.items()
            if state is not State.LOST and registry not in tried
        ]
        return min(able, key=lambda one: (self._states[one], one.outstanding), default=None)

    # Requests ----------------------------------------------------------------------------------

    async def answer(self, request: Request, trace: str) -> Answer:
        """The registry's answer to a request.

        Raises Overloaded if no registry can be reached, NoResponse if one has begun to work and
        gave no answer, and what reading the client's body raises.
        """
        if self.exchanges >= EXCHANGES:
            raise Overloaded(retry_after_s=RETRY_AFTER_S)
        passed_on = self._request(request, trace)
        again = request.method in _SAFE and passed_on.body is None
        tried: set[Registry] = set()
        while (registry := self._best(tried)) is not None:
            try:
                return await self._exchange(registry, passed_on, repeatable=again)
            except UpstreamFailed as failed:
                _log.info(log_events.REGISTRY_FAILED, registry=str(registry), reason=str(failed))
                if not failed.sent:
                    self._note(registry, State.LOST)
                    tried.add(registry)
                    continue
                if again and failed.unanswered:
                    again = False
                    if failed.stale:
                        continue
                    if self._best(tried | {registry}) is not None:
                        tried.add(registry)
                        continue
                raise NoResponse(
                    Detail("server", "may have carried the request out, or not")
                ) from failed
        raise Overloaded(
            Detail("server", "reaches no registry at the moment"), retry_after_s=RETRY_AFTER_S
        )

    async def _exchange(
        self, registry: Registry, request: UpstreamRequest, *, repeatable: bool
    ) -> Answer:
        if not repeatable:
            return await registry.exchange(request)
        with trio.CancelScope() as scope:
            self._repeatable[registry].add(scope)
            try:
                return await registry.exchange(request)
            finally:
                self._repeatable[registry].discard(scope)
        raise UpstreamFailed("is lost", sent=True, unanswered=True)

    def _request(self, request: Request, trace: str) -> UpstreamRequest:
        scope = request.scope
        target: bytes = scope["raw_path"]
        if request.query_string:
            target = b"%b?%b" % (target, request.query_string)
        # The first header is the address, as Quart has it.
        pairs = [(name.lower(), value) for name, value in list(request.headers)[1:]]
        connection = [value for name, value in pairs if name == "connection"]
        named = named_by_connection(connection)
        headers: Headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in pairs
            if not (is_hop_by_hop(name) or name in named or name in _OWN or is_claimed(name))
        ]
        passed = Passed(request.scheme == "https", self._gateway, address_of(request), trace)
        headers += [
            (GATEWAY, passed.gateway_header.encode()),
            (CLIENT, passed.client.encode()),
            (TRACE, passed.trace.encode()),
        ]
        if self._secret is not None:
            proved = proof(self._secret, passed, request.method, target, self._now_ms())
            headers.append((PROOF, proved.encode()))
        body = cast(ReceivedBody, request.body)
        has_body = not body.whole or body.held_bytes > 0
        return UpstreamRequest(
            request.method,
            target,
            headers,
            partial(body.chunks, _UNLIMITED) if has_body else None,
            body.expected_bytes,
            any(name == "expect" and value.lower() == "100-continue" for name, value in pairs),
        )
