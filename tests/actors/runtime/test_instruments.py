from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime.actor import Restart
from actors.runtime.errors import MailboxFull
from actors.runtime.instruments import Instruments, NoInstruments
from tests.actors.probe import Do, Note, crash, open_supervisor


class Counted:
    """Instruments that remember."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def drained(self, kind: str, messages: int, waited_s: float) -> None:
        self.said.append(("drained", kind, messages, round(waited_s, 3)))

    def crashed(self, kind: str, *, restarted: bool) -> None:
        self.said.append(("crashed", kind, restarted))

    def refused(self, kind: str) -> None:
        self.said.append(("refused", kind))


async def test_drains_are_counted_with_how_long_their_oldest_message_waited(
    autojump_clock: MockClock,
) -> None:
    instruments = Counted()
    async with open_supervisor(instruments) as harness:
        ref = await harness.start()
        ref.tell(Do(lambda _: trio.sleep(1)))
        await trio.sleep(0.25)
        ref.tell(Note("a"))
        await trio.sleep(0.25)
        ref.tell(Note("b"))
        await trio.sleep(1)
    assert instruments.said == [("drained", "probe", 1, 0), ("drained", "probe", 2, 0.75)]


async def test_crashes_are_counted_with_what_followed(autojump_clock: MockClock) -> None:
    instruments = Counted()
    async with open_supervisor(instruments) as harness:
        ref = await harness.start(restart=Restart(intensity=2))
        for _ in range(2):
            ref.tell(Do(crash))
            await trio.sleep(1)
    assert instruments.said == [("crashed", "probe", True), ("crashed", "probe", False)]


async def test_refusals_are_counted() -> None:
    instruments = Counted()
    async with open_supervisor(instruments) as harness:
        ref = await harness.start(mailbox_limit=0)
        for send in (ref.tell, ref.tell):
            with pytest.raises(MailboxFull):
                send(Note("a"))
        await wait_all_tasks_blocked()
    assert instruments.said == [("refused", "probe")] * 2


def test_nobody_needs_to_watch() -> None:
    nobody: Instruments = NoInstruments()
    nobody.drained("probe", 1, 0.0)
    nobody.crashed("probe", restarted=True)
    nobody.refused("probe")
