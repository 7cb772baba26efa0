"""What the host's messages mean for the sockets of a gateway that asked for fewer values."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from actors.cluster import wire
from actors.cluster.remote_sockets import RemoteSockets
from actors.delivery.interest import InterestGroups
from reileta.observability.metrics import Metrics
from reileta.protocol.frames import encode, text_frame
from reileta.rules.instance.interest import LEFT, Interest
from tests.actors.node_harness import ROOM
from tests.actors.sinks import FakeSink

Frame = tuple[str, tuple[int, int] | None]
"""What it says, and the numbers of its key's parts in NAMES."""
NAMES = ["p_ann", "p_me", "pose", LEFT]
ANN, ME, POSE, GONE = range(4)


def fan(*frames: Frame, skipped: int = 0) -> wire.Fan:
    """Frames for the one remote socket, but for the first ones, which are its own."""
    sent = [text_frame(encode({"command": text})) for text, _ in frames]
    ends = [sum(map(len, sent[: number + 1])) for number in range(len(sent))]
    buffer = wire.Buffer(b"".join(sent), ends, [key for _, key in frames])
    if not skipped:
        return wire.Fan(["b"], [buffer], True, names=NAMES)
    spans = [(0, ends[skipped - 1], ends[-1])]
    return wire.Fan(["b"], [buffer], False, edits=[(0, 1, spans)], names=NAMES)


async def test_values_of_who_leaves_while_the_only_remote_player_speaks_are_not_sent() -> None:
    groups = InterestGroups(Metrics())
    sink = FakeSink()
    sockets = RemoteSockets(ROOM, groups)
    sockets.connect(1, sink, "s_1").receives = True
    groups.ask(ROOM, sink, "p_me", Interest(rate=0.1))
    own: Frame = ("own", None)
    for before in (
        [fan(("pose", (ANN, POSE)))],
        [fan(own, ("pose", (ANN, POSE)), skipped=1)],
        [fan(("pose", (ANN, POSE))), fan(own, ("pose", (ANN, POSE)), skipped=1)],
    ):
        for each in before:
            sockets.apply(each, 0)
        sockets.apply(fan(own, ("left", (ANN, GONE)), skipped=1), 0)
        groups.by_instance[ROOM].tick(trio.current_time() + 100)
        assert commands(sink) == ["left"]
        assert not groups.by_instance[ROOM].rules.size


def commands(sink: FakeSink) -> Sequence[str]:
    return [message["command"] for message in sink.take()]
