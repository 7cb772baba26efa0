"""The server's side of the link of an instance node.

Nothing here waits for an instance: what the node says goes into the instance's box at once, and
what an instance has for the node waits there until the socket can take it. So an instance that is
slow, or a node that does not read, holds up nobody else.

Overflow policy: each instance bounds its own (`actors/links/port.py`); `CONTROL` other items wait
at most, then the link ends.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

import structlog
import trio

from actors.links.host_links import HostLinks
from actors.links.port import HostedPort
from api.ws.transport.base import Transport, TransportState
from reileta.errors import CredentialInvalid, ReiletaError
from reileta.observability import log_events
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import binary_frame
from reileta.protocol.node_link import (
    VERSION,
    Direct,
    End,
    Fan,
    FromNode,
    Hello,
    Hold,
    Malformed,
    Ping,
    Pong,
    Refuse,
    Welcome,
    Window,
    from_node,
    messages_of,
)
from reileta.records import HostNode
from reileta.rules.identity import Principal
from reileta.rules.nodes.flow import Allowance, Breaches

HELLO_S: Final = 5.0
"""Seconds for the node's first message."""
PING_S: Final = 10.0
SILENT_S: Final = 25.0
"""A node of which no byte came for so long is gone."""
MESSAGES_PER_S: Final = 5_000
ITEMS_PER_S: Final = 20_000
"""Items other than players' data, which each instance counts, and such data if it is late."""
HIGH_BYTES: Final = 256 * 1024
"""Bytes that wait for the socket before instances keep theirs."""
CONTROL: Final = 4096
GONE: Final = 1024
"""Instances that are remembered after they have ended, since the node may not have heard of it."""
PONGS: Final = 64
"""Pongs that wait; of more, the newest."""
NEVER: Final = 2**62

_log = structlog.get_logger()


class LinkConnection:
    """One link. A `ClientConnection` for the gateway, and an `OpenLink` for instances."""

    lacks_credential = False
    expires_at = NEVER

    def __init__(
        self,
        links: HostLinks,
        transport: Transport,
        host: HostNode,
        token_hash: bytes,
        *,
        address: str,
        public_key: str,
    ) -> None:
        self.transport = transport
        self.node = host.id
        self.user: str | None = host.owner
        """For the rules about clients: whom they refuse, has no links."""
        self.token_hash = token_hash
        self.number = 0
        self.reason = "closed"
        self.cut_for: str | None = None
        self._links = links
        self._metrics = links.metrics
        self._address = address
        self._public_key = public_key
        self._hello: Hello | None = None
        self._rest: list[FromNode] = []
        self._welcomed = self._ended = False
        now = trio.current_time()
        self._opened_at = self._pinged_at = now
        self._pings = 0
        self._allowance = Allowance(MESSAGES_PER_S, ITEMS_PER_S, now)
        self._breaches = Breaches()
        self._control: deque[object] = deque()
        self._ready: OrderedDict[HostedPort | None, None] = OrderedDict()
        """The instances that have something to send, in turns. None stands for `_pongs`: they take
        a turn, too, so a node gets a pong after all that was sent before its ping."""
        self._pongs: deque[Pong] = deque(maxlen=PONGS)
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._stir = trio.Event()

    # For the gateway ---------------------------------------------------------------------------

    def opened(self) -> None:
        """The socket is open."""

    async def start(self, principal: Principal) -> None:
        """Does nothing: a node is not a user."""

    def take(self, payload: bytes | None) -> bool:
        """Takes one message; False when `handle` must finish it. Never waits, never raises."""
        if self._ended:
            return True
        if payload is None:
            self.breach("sends text")
            return True
        try:
            items, count = from_node.decode_counted(payload)
        except Malformed:
            self.breach("sends what is not a message")
            return True
        others = count - sum(isinstance(item, Fan) for item in items)
        if self._allowance.take(others, trio.current_time()) > 0:
            self.breach("sends too many messages")
            return True
        if not self._welcomed:
            if self._hello is not None or not items or not isinstance(items[0], Hello):
                self.end(CloseCode.BAD_FORM, "must begin with a hello")
                return True
            self._hello, *self._rest = items  # type: ignore[assignment]  # the first one is
            return False
        self._hear_all(items)
        return True

    async def handle(self) -> None:
        """Opens the link that the node's hello asks for."""
        hello = self._hello
        assert hello is not None
        if VERSION not in hello.versions:
            self.end(CloseCode.BAD_FORM, f"this server speaks version {VERSION}")
            return
        if len(hello.holds) > GONE:
            self.end(CloseCode.BAD_FORM, "holds too many instances")
            return
        try:
            await self._links.open(self, hello, self._welcome)
        except CredentialInvalid:
            self.end(CloseCode.CREDENTIAL_GONE, "the token is no longer valid")
        except ReiletaError as error:
            self.end(CloseCode.TRY_AGAIN_LATER, error.message)
        rest, self._rest = self._rest, []
        if self._welcomed:
            self._hear_all(rest)

    def _welcome(self, host: HostNode, goes_on: list[Hold]) -> None:
        self._welcomed = True
        self._send(Welcome(host.id, host.link, self._address, self._public_key, goes_on=goes_on))

    def charge_overhead(self) -> None:
        """Counts frames that were not messages."""
        frames, self.transport.overhead = self.transport.overhead, 0
        if self._allowance.take(0, trio.current_time(), items=frames) > 0:
            self.breach("sends too many frames")

    def expire(self) -> None:
        """Does nothing: tokens of nodes don't expire."""

    def check_deadlines(self, now: float) -> None:
        """Ends the link of a node that says nothing, and asks whether it is there."""
        if self._ended:
            return
        if not self._welcomed and now > self._opened_at + HELLO_S and self._hello is None:
            self.end(CloseCode.BAD_FORM, "no hello in time")
        elif now > self.transport.heard_at + SILENT_S:
            self.reason = "silent"
            self._end("silent")
            self.transport.cut()
        elif self._welcomed and now >= self._pinged_at + PING_S:
            self._pinged_at = now
            self._pings += 1
            self._send(Ping(self._pings))

    def closed(self) -> None:
        """The socket has ended. Never waits."""
        self._end("lost")

    # For instances -----------------------------------------------------------------------------

    def wake(self, port: HostedPort) -> None:
        """As `Link.wake`."""
        self._ready[port] = None
        self._stir.set()

    def forget(self, port: HostedPort) -> None:
        """An instance has ended."""
        self._ready.pop(port, None)
        self._gone[port.id] = None
        if len(self._gone) > GONE:
            self._gone.popitem(last=False)
        self._send(End(port.id, port.epoch))

    def tell(self, item: object) -> None:
        """As `OpenLink.tell`."""
        self._send(item)

    def breach(self, reason: str) -> None:
        """As `Link.breach`."""
        if self._ended:
            return
        self._metrics.link_breaches += 1
        _log.warning(log_events.NODE_REFUSED, node=self.node, reason=reason)
        if self._breaches.note(trio.current_time()):
            self.cut_for = reason
            self.end(CloseCode.BAD_FORM, reason)

    def give_up(self, reason: str) -> None:
        """As `Link.give_up`."""
        self.end(CloseCode.TOO_SLOW, reason)

    def end(self, code: CloseCode, reason: str) -> None:
        """As `OpenLink.end`."""
        if not self._ended:
            self.reason = reason
            self._end(code.name.lower())
            self.transport.close(code, reason)

    def _end(self, why: str) -> None:
        if self._welcomed and not self._ended:
            self._metrics.links_ended[why] += 1
        self._ended = True
        self._links.detach(self)
        self._ready.clear()
        self._stir.set()

    # In ----------------------------------------------------------------------------------------

    def _hear_all(self, items: list[FromNode]) -> None:
        for item in items:
            if self._ended:
                return
            fault = self._hear(item)
            if fault is not None:
                self.breach(fault)

    def _hear(self, item: FromNode) -> str | None:
        """Takes one item; returns what is wrong with it, or None."""
        match item:
            case Fan() | Direct():
                self._metrics.link_items_in += 1
                port = self._port(item.instance)
                if port is not None and not port.is_late(item):
                    return port.hear(item)
                if self._allowance.take(1, trio.current_time(), items=0) > 0:
                    return "sends too many messages of what has ended"
                return self._unknown(item.instance) if port is None else None
            case Window(instance, epoch, number):
                port = self._port(instance)
                if port is None:
                    return self._unknown(instance)
                return port.handled_there(epoch, number)
            case Refuse(instance, epoch):
                port = self._port(instance)
                if port is None:
                    return self._unknown(instance)
                port.refuse(epoch)
            case Ping(number):
                self._pongs.append(Pong(number))
                self._ready.pop(None, None)
                self._ready[None] = None
                self._stir.set()
            case Pong(number):
                if number == self._pings:
                    took_s = trio.current_time() - self._pinged_at
                    self._metrics.link_round_trip.observe(took_s)
            case Hello():
                return "says hello again"
            case _:
                pass
        return None

    def _port(self, instance: str) -> HostedPort | None:
        port = self._links.ports(self.node).get(instance)
        return port if port is not None and port.epoch else None

    def _unknown(self, instance: str) -> str | None:
        return None if instance in self._gone else "names an instance that it does not host"

    # Out ---------------------------------------------------------------------------------------

    def _send(self, item: object) -> None:
        """Sends an item that no window bounds."""
        if len(self._control) >= CONTROL:
            self.end(CloseCode.TOO_SLOW, "does not read")
            return
        self._control.append(item)
        self._stir.set()

    async def pump(self) -> None:
        """Sends what waits, one instance after the other; until the link ends."""
        while not self._ended:
            await self._stir.wait()
            self._stir = trio.Event()
            while (self._control or (self._ready and self._welcomed)) and not self._ended:
                control, self._control = self._control, deque()
                await self._write(list(control))
                if self._ready and self._welcomed and not self._ended:
                    port, _ = self._ready.popitem(last=False)
                    await self._write(
                        self._waiting_pongs() if port is None else self._items_of(port)
                    )

    def _waiting_pongs(self) -> list[object]:
        pongs, self._pongs = list(self._pongs), deque(maxlen=PONGS)
        return [*pongs]

    def _items_of(self, port: HostedPort) -> list[object]:
        if port.link is not self:
            return []
        items: list[object] = []
        if port.opening is not None:
            items.append(port.opening)
            port.opening = None
        items += port.outbox.take()
        self._metrics.link_items_out += len(items)
        if port.owes_window:
            port.owes_window = False
            items.append(Window(port.id, port.epoch, port.handled))
        return items

    async def _write(self, items: list[object]) -> None:
        for message in messages_of(items):
            while (  # noqa: ASYNC110  # rare: the socket is full
                self.transport.waiting_bytes > HIGH_BYTES
                and self.transport.state is TransportState.OPEN
            ):
                await trio.sleep(0.01)
            self.transport.send(binary_frame(message))
        await trio.lowlevel.checkpoint()
