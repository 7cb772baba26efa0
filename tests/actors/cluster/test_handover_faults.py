"""Hand-overs with messages lost anywhere, and with the death of a node at each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from reileta.cluster.bus import BusMessage
from reileta.errors import DatabaseUnavailable, Overloaded
from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.node_harness import Client

Death = Literal["", "old before", "old after", "new after", "new late"]
DEATHS: Final[tuple[Death, ...]] = ("", "old before", "old after", "new after", "new late")
LATER: Final = 1000
"""Numbers of what is said once all is over."""


class NodeDied(DatabaseUnavailable):
    """The node that was to move the place is gone."""


@dataclass
class Speaker:
    """A player that says numbers, and those that were taken from it."""

    client: Client
    number: int
    said: list[int] = field(default_factory=list)

    def say(self, what: int) -> None:
        try:
            self.client.say(b"[%d,%d]" % (self.number, what))
        except Overloaded:
            return  # it knows that nobody gets this
        self.said.append(what)


@dataclass
class Story:
    """One hand-over from `a` to `b`; the third node has a player, too."""

    cluster: Cluster
    speakers: list[Speaker]
    death: Death
    lost: frozenset[int]
    moving: bool = True

    async def play(self) -> None:
        cluster = self.cluster
        cluster["a"].member.unseen.add("c")  # so it goes to b
        cluster.nats.loses = _Loses(self.lost)
        if self.death == "old after":
            cluster.on_move = lambda: cluster.kill("a")
        elif self.death == "new after":
            cluster.on_move = lambda: cluster.kill("b")
        elif self.death == "old before":
            cluster.before_move = self._die
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_speaking)
            await trio.sleep(0.01)
            with trio.fail_after(60):
                await cluster["a"].handover.run()
            if self.death == "new late":
                cluster.kill("b")
            await trio.sleep(0.05)
            self.moving = False
        await trio.sleep(12)
        cluster.nats.loses = lambda *_: False
        await trio.sleep(3)
        for speaker in self.alive:
            speaker.say(LATER)
        await trio.sleep(3)

    def _die(self) -> None:
        if "a" in self.cluster.live:  # a move that fails is tried again
            self.cluster.kill("a")
        raise NodeDied

    async def _keep_speaking(self) -> None:
        said = 0
        while self.moving:
            for speaker in self.alive:
                speaker.say(said)
            said += 1
            await trio.sleep(0.002 + said * 0.001)

    @property
    def alive(self) -> list[Speaker]:
        names = ("a", "b", "c")
        return [one for one in self.speakers if names[one.number] in self.cluster.live]

    def judge(self) -> None:
        for receiver in self.alive:
            received = receiver.client.sink.take()
            commands = {each["command"] for each in received} - {"instance-data"}
            restored = "instance-restored" in commands
            if not self.death and len(self.lost) <= 1:
                assert not commands
            for speaker in self.speakers:
                of_one = [
                    each["data"]["data"][1]
                    for each in received
                    if each["command"] == "instance-data"
                    and each["data"]["data"][0] == speaker.number
                ]
                assert of_one == sorted(set(of_one)), "twice, or not in order"
                if speaker is receiver:
                    assert of_one == []
                    continue
                assert set(of_one) <= set(speaker.said)
                if speaker in self.alive:
                    assert of_one[-1:] == [LATER], "it hears nothing any more"
                if not restored and not self.death:
                    assert of_one == speaker.said, "lost without a word"


class _Loses:
    """Loses the messages with these numbers."""

    def __init__(self, lost: frozenset[int]) -> None:
        self._lost = lost
        self._seen = -1

    def __call__(self, bus: str, message: BusMessage) -> bool:
        self._seen += 1
        return self._seen in self._lost


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    death=st.sampled_from(DEATHS),
    lost=st.frozensets(st.integers(0, 80), max_size=5),
)
@example(death="old before", lost=frozenset())
@example(death="old after", lost=frozenset())
@example(death="new after", lost=frozenset())
@example(death="new late", lost=frozenset())
def test_each_receiver_gets_everything_once_in_order_or_a_snapshot(
    death: Death, lost: frozenset[int]
) -> None:
    async def play() -> None:
        with pytest.MonkeyPatch.context() as patch:
            async with open_cluster(patch, "a", "b", "c") as cluster:
                cluster.prefer = "a"
                speakers = [
                    Speaker(await cluster[node].harness.joined(number), number)
                    for number, node in enumerate("abc")
                ]
                await trio.sleep(1)
                for speaker in speakers:
                    speaker.client.sink.take()
                cluster.prefer = "c"
                story = Story(cluster, speakers, death, lost)
                await story.play()
                story.judge()

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))
