"""Orders to instances, given at this node: each is carried out once, or its outcome is unknown.

An order has an id, its *deed*. It is repeated under this id while its instance gets a new host,
which finds it done or does it. If nobody can say how it went, its requester gets `OutcomeUnknown`,
and the order is remembered: the same order by the same session, with the same `state`, is taken for
its repetition. Any other order of this session to the instance ends that, and so does time. A
request without a `state` can't be told from a new one that is alike, so it is remembered shortly.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import fields, replace
from hashlib import sha256
from typing import Any, Final, Protocol, TypeAlias, TypeVar
from uuid import uuid4

import msgspec
import trio

from actors.instance.manager import InstanceRef
from actors.instance.messages import CloseInstance, Moderate, Order
from actors.runtime.errors import ActorCrashed, ActorStopped, AskTimedOut
from actors.runtime.message import Request
from reileta.errors import DatabaseUnavailable, InstanceNotFound, OutcomeUnknown, ReiletaError
from reileta.records import Deed
from reileta.rules.identity import Visitor

REPEATED_S: Final = 5.0
"""Seconds for which an order is repeated whose host has ended."""
AGAIN_S: Final = 0.1
"""Seconds between two attempts."""
REMEMBERED_S: Final = 600.0
"""Seconds for which an order with a `state` is remembered; as long as its answer is stored."""
REMEMBERED_STATELESS_S: Final = 30.0
REMEMBERED: Final = 4096
"""Orders that are remembered; the oldest are forgotten."""

R = TypeVar("R", bound=Request[Any])

Answers: TypeAlias = Callable[[str], Awaitable[bytes | None]]
"""Reads the answer of a deed; None: it is not done."""

_NOT_COMPARED: Final = ("slot", "sink", "deed", "by", "visitor", "admin", "guest")


class Instances(Protocol):
    """Finds instances (`actors.instance.manager.InstanceManager`)."""

    async def live(self, name: str, who: Visitor) -> tuple[str, InstanceRef]: ...


class Orders:
    """The orders of this node's clients."""

    def __init__(self, instances: Instances, answers: Answers) -> None:
        self._instances = instances
        self._answers = answers
        self._unknown: OrderedDict[Hashable, tuple[bytes, str, float]] = OrderedDict()
        """By session and instance: the order, its deed, and until when it is remembered."""

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {"unknown orders": len(self._unknown)}

    async def give(self, instance_id: str, by: Visitor, order: Order) -> Any:
        """The answer to the order.

        Raises:
            OutcomeUnknown: it may have been carried out, or not; it can be given again.
            ReiletaError: what the instance refuses it with.
        """
        place, content = (by.session, by.user, instance_id), _content(order)
        known = self._unknown.pop(place, None)
        again = known is not None and known[0] == content and trio.current_time() < known[2]
        deed = Deed(known[1] if known is not None and again else str(uuid4()), again)
        settled = False
        try:
            answer = await self._give(instance_id, by, replace(order, deed=deed))
            settled = True
        except (OutcomeUnknown, DatabaseUnavailable):
            raise
        except ReiletaError:
            settled = True
            raise
        finally:  # also if the requester went away
            if not settled:
                kept_s = REMEMBERED_S if _has_state(order) else REMEMBERED_STATELESS_S
                self._unknown[place] = (content, deed.id, trio.current_time() + kept_s)
                while len(self._unknown) > REMEMBERED:
                    self._unknown.popitem(last=False)
        return answer

    async def _give(self, instance_id: str, by: Visitor, order: Order) -> Any:
        until = trio.current_time() + REPEATED_S
        while True:
            try:
                _, ref = await self._instances.live(instance_id, by)
                return await ref.ask(order)
            except ActorCrashed:
                raise
            except AskTimedOut as error:
                raise OutcomeUnknown from error
            except ActorStopped as error:  # this node fell, or the instance moved: maybe in between
                if trio.current_time() >= until:
                    raise OutcomeUnknown from error
                order = repeated(order)
            except InstanceNotFound:
                if await self._has_closed(order):
                    return None
                raise
            await trio.sleep(AGAIN_S)

    async def _has_closed(self, order: Order) -> bool:
        """Whether the instance is gone because of this order."""
        if not isinstance(order, CloseInstance) or order.deed is None:
            return False
        return await self._answers(order.deed.id) is not None


def repeated(request: R) -> R:
    """The same request; an order may have come before."""
    order: Any = request
    deed: Deed | None = getattr(order, "deed", None)
    if deed is None:
        return request
    again: R = replace(order, deed=replace(deed, again=True))
    return again


def _content(order: Order) -> bytes:
    """The same for an order and its repetition."""
    names = [one.name for one in fields(order) if one.name not in _NOT_COMPARED]
    values = [type(order).__name__, *(getattr(order, name) for name in names)]
    return sha256(msgspec.json.encode(values, order="deterministic")).digest()


def _has_state(order: Order) -> bool:
    return isinstance(order, Moderate) and order.state is not None
