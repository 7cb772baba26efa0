"""One instance's end of a link: numbers, windows and rates; what the node says waits here.

Bounds: the node may send `WINDOW_BYTES` before they are handled (more than `BOX_BYTES` is a breach
of form), and `ITEMS_PER_S` and `BYTES_PER_S` are relayed; the rest waits, and so does the node.
What goes to the node is bounded by `Outbox`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import trio

from reileta.protocol.node_link import Direct, Fan, Hold, size_of
from reileta.records import DirectAddress, HostNode
from reileta.rules.nodes.flow import WINDOW_BYTES, Allowance, Outbox
from reileta.rules.nodes.form import fault_in

ITEMS_PER_S: Final = 2000
BYTES_PER_S: Final = 4 * 1024 * 1024
BOX_BYTES: Final = 2 * WINDOW_BYTES
"""Twice the window: what waits here when a link is replaced counts as handled for the next one."""


class Link(Protocol):
    """The socket of a node, as its instances use it (`api/ws/link/connection.py`)."""

    def wake(self, port: HostedPort) -> None:
        """The instance has something to send."""
        ...

    def breach(self, reason: str) -> None:
        """The node has broken the form; the third time within a minute the link is cut."""
        ...

    def give_up(self, reason: str) -> None:
        """The node does not handle what it gets: the link ends."""
        ...


class HostedPort:
    """A `NodePort`: the instance's end of its node's link, present or not.

    Attributes:
        id: the instance.
        link: the node's link; None: it has none.
        epoch: of what the node hosts; 0 before it has hosted the instance.
        direct: where clients can reach the node themselves, if it has proved that it is there.
        withdrawn: whether they can't any more: those who are connected there are to come back.
        opening: the item by which the node begins with the instance, if it is still to be sent.
        owes_window: whether the node is to be told what was handled.
    """

    def __init__(
        self,
        instance: str,
        host: HostNode,
        *,
        grace_s: float,
        epochs: Callable[[], int],
        begun: Callable[[HostedPort], None],
        ended: Callable[[HostedPort], None],
        doubted: Callable[[str], None],
        missed: Callable[[str], None],
    ) -> None:
        self.id = instance
        self.node = host.id
        self.dedicated = host.kind == "dedicated"
        self.grace_s = grace_s
        self.draining = host.draining
        self.link: Link | None = None
        self.direct: DirectAddress | None = None
        self.withdrawn = False
        self.epoch = 0
        self.outbox: Outbox[object] = Outbox()
        self.opening: object | None = None
        self.owes_window = False
        self._epochs = epochs
        self._begun, self._ended, self._doubted, self._missed = begun, ended, doubted, missed
        self._hosted = self._refused = False
        self._changed: Callable[[], object] = lambda: None
        self._expected = 1
        self._handled = 0
        self._box: deque[Fan | Direct] = deque()
        self._box_bytes = 0
        now = trio.current_time()
        self._allowance = Allowance(ITEMS_PER_S, BYTES_PER_S, now)

    # For the actor -----------------------------------------------------------------------------

    @property
    def linked(self) -> bool:
        """As `NodePort.linked`."""
        return self.link is not None and not self._refused

    @property
    def hosted(self) -> bool:
        """As `NodePort.hosted`."""
        return self._hosted and self.link is not None

    @property
    def keeps(self) -> bool:
        """As `NodePort.keeps`."""
        return self._hosted

    @property
    def handled(self) -> int:
        """The last number of the node that was handled."""
        return self._handled

    def listen(self, changed: Callable[[], object]) -> None:
        """As `NodePort.listen`."""
        self._changed = changed
        self._begun(self)

    def begin_anew(self) -> None:
        """As `NodePort.begin_anew`."""
        self._hosted = False
        self._clear()

    def host(self, make: Callable[[int], object]) -> None:
        """As `NodePort.host`."""
        self._clear()
        self.epoch = self._epochs()
        self.opening = make(self.epoch)
        self._hosted = True
        self._wake()

    def give_up(self) -> None:
        """As `NodePort.give_up`."""
        self.begin_anew()

    def put(self, make: Callable[[int, int], object]) -> int:
        """As `NodePort.put`."""
        number = self.outbox.next_number()
        item = make(self.epoch, number)
        self.outbox.put(item, size_of(item))
        if self.outbox.stuck and self.link is not None:
            self.link.give_up("does not handle what it gets")
        self._wake()
        return number

    def take(self, now: float) -> tuple[Fan | Direct | None, float]:
        """As `NodePort.take`."""
        while self._box:
            fan = self._box[0]
            size = size_of(fan)
            wait_s = self._allowance.take(size, now)
            if wait_s > 0:
                return None, wait_s
            self._box.popleft()
            self._box_bytes -= size
            self._done(fan.number)
            return fan, 0.0
        return None, 0.0

    def breach(self, reason: str) -> None:
        """As `NodePort.breach`."""
        if self.link is not None:
            self.link.breach(reason)

    def doubt(self) -> None:
        """As `NodePort.doubt`."""
        self._doubted(self.node)

    def miss(self) -> None:
        """As `NodePort.miss`."""
        self._missed(self.node)

    def ended(self) -> None:
        """As `NodePort.ended`."""
        self._changed = lambda: None
        self._ended(self)

    # For the link ------------------------------------------------------------------------------

    def resume(self, link: Link, hold: Hold | None) -> Hold | None:
        """The node has a new link; returns how it goes on, or None if it must begin anew."""
        self.link, self._refused = link, False
        goes_on = hold is not None and self._hosted and hold.epoch == self.epoch
        if goes_on and hold is not None and self.outbox.resume(hold.heard):
            self.owes_window = False
            return Hold(self.id, self.epoch, self._expected - 1)
        self._hosted = False
        return None

    def lose(self, link: Link) -> None:
        """A link has ended."""
        if self.link is link:
            self.link = self.direct = None
            if self.opening is not None:
                self._hosted = False  # the node may not have got it
            self._changed()

    def news(self) -> None:
        """Something has changed: the actor looks."""
        self._changed()

    def reach(self, direct: DirectAddress | None) -> None:
        """Clients can reach the node there from now on; None: they can't any more."""
        self.direct, self.withdrawn = direct, direct is None
        self._changed()

    def is_late(self, fan: Fan | Direct) -> bool:
        """Whether a message counts for nothing: the node has not heard of a change yet, or says it
        again."""
        if not self._hosted or fan.epoch < self.epoch:
            return True
        return fan.epoch == self.epoch and fan.number < self._expected

    def hear(self, fan: Fan | Direct) -> str | None:
        """Takes the node's message; returns what is wrong with it, or None."""
        if self.is_late(fan):
            return None
        if fan.epoch > self.epoch:
            return "names an epoch that has not begun"
        if fan.number > self._expected:
            return "leaves out a number"
        self._expected += 1
        fault, size = fault_in(fan), size_of(fan)
        if fault is None and self._box_bytes + size > BOX_BYTES:
            fault = "sends more than the window allows"
        if fault is not None:
            if not self._box:
                self._done(fan.number)
            return fault
        self._box.append(fan)
        self._box_bytes += size
        if len(self._box) == 1:
            self._changed()
        return None

    def handled_there(self, epoch: int, number: int) -> str | None:
        """The node has handled items; returns what is wrong with that, or None."""
        if not self._hosted or epoch < self.epoch:
            return None
        if epoch > self.epoch or not self.outbox.acknowledge(number):
            return "acknowledges what was not sent"
        if not self.outbox.open:
            self._changed()
        return None

    def refuse(self, epoch: int) -> None:
        """The node can't host the instance."""
        if epoch == self.epoch and self._hosted:
            self._hosted, self._refused = False, True
            self._clear()
            self._changed()

    # Helpers -----------------------------------------------------------------------------------

    def _done(self, number: int) -> None:
        self._handled = number
        self.owes_window = True
        self._wake()

    def _clear(self) -> None:
        self.outbox = Outbox()
        self.opening = None
        self.owes_window = False
        self._expected, self._handled = 1, 0
        self._box.clear()
        self._box_bytes = 0

    def _wake(self) -> None:
        if self.link is not None:
            self.link.wake(self)
