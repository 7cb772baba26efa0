"""Instances that are recorded: what players did comes out again, also what a crash did."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from structlog.testing import capture_logs

import actors.instance.manager
from actors.instance.recorded import RecordedInstanceActor
from reileta.diagnostics.recording import Received
from reileta.diagnostics.replay import Replay, ReplayStep, state
from tests.actors.node_harness import ROOM, InspectableInstance, NodeHarness, open_harness, settle

T = TypeVar("T")


class InspectableRecordedInstance(RecordedInstanceActor, InspectableInstance):  # type: ignore[misc]
    """A recorded instance to whose inside tests have a door."""


@asynccontextmanager
async def recording(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, ends: list[Any] | None = None, **settings: Any
) -> AsyncIterator[NodeHarness]:
    """A node that records. `ends` is given the state of each instance that stops.

    Files are written in the test's own thread: Trio's clock would jump while another one writes.
    """

    async def at_once(work: Callable[..., T], *args: Any, **_: Any) -> T:
        await trio.lowlevel.checkpoint()
        return work(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)

    class Watched(InspectableRecordedInstance):
        async def on_stop(self) -> None:
            await super().on_stop()
            if ends is not None:
                ends.append(state(self.parts.rules))

    monkeypatch.setattr(actors.instance.manager, "RecordedInstanceActor", Watched)
    async with open_harness(monkeypatch, record=folder, **settings) as harness:
        yield harness


def played(path: Path) -> tuple[Replay, list[ReplayStep]]:
    with path.open("rb") as file:
        replay = Replay(file)
        return replay, list(replay.steps())


def files(folder: Path) -> list[Path]:
    """The recordings, the oldest first."""
    return sorted(folder.iterdir(), key=lambda one: int(one.name.split(".")[2]))


def kinds(steps: list[ReplayStep]) -> list[str]:
    return ["start" if one.message is None else one.message.kind for one in steps]


async def test_an_instance_comes_out_of_its_recording_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    ends: list[Any] = []
    async with recording(monkeypatch, tmp_path, ends=ends) as harness:
        ann, bob = await harness.crowd(1, 2)
        ann.say(b'{"x":1}', key="pos", at=10**25)
        bob.say(b'"\\ud83d\\ude00"', to=(ann.sink.seats[ROOM].player,))
        bob.say(b"1", key="x" * 99)
        await settle()
        bob.lose()
        await trio.sleep(20)
        await harness.joined(3)
        await ann.leave()
    (path,) = files(tmp_path)
    replay, steps = played(path)
    assert replay.as_recorded is True
    assert replay.rules is not None
    assert [state(replay.rules)] == ends
    assert replay.refused == 1  # the key that was too long
    assert replay.ended is not None
    assert replay.ended.reason == "stopped"
    heard = [one for one in kinds(steps) if one not in ("WorkDone", "RunInActor")]
    assert heard[:10] == [
        "start",
        *(
            "AddMember",
            "AddMember",
            "SendData",
            "SendData",
            "SendData",
            "SocketLost",
            "Tick",
            "AddMember",
            "RemoveMember",
        ),
    ]
    assert set(heard[10:]) <= {"SocketLost"}, "the session may stop first"
    tick = steps[kinds(steps).index("Tick")]
    assert [call.rule for call in tick.calls] == ["tick"]


async def test_messages_carry_their_traces_and_sockets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with recording(monkeypatch, tmp_path) as harness:
        ann, bob = await harness.crowd(1, 2)
        ann.say(b"1")
        bob.say(b"2")
        await settle()
    _, steps = played(files(tmp_path)[0])
    messages = [one.message for one in steps if one.message is not None]
    sockets = [one.socket for one in messages if one.kind in ("AddMember", "SendData")]
    assert sockets == [1, 2, 1, 2]
    ids = [one.id for one in messages]
    assert ids == sorted(ids)
    enters = [one for one in messages if one.kind == "AddMember"]
    assert all(one.cause for one in enters), "the session's message caused it"
    written = [one for one in messages if one.kind == "WorkDone"]
    assert all(isinstance(one, Received) and one.socket is None for one in written)


async def test_a_crash_s_recording_is_kept_and_named_and_the_next_one_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    ends: list[Any] = []
    with capture_logs() as logs:
        async with recording(monkeypatch, tmp_path, ends=ends) as harness:
            ann, bob = await harness.crowd(1, 2)
            ann.say(b"1", key="pos")
            await settle()
            harness.crash()
            await trio.sleep(1)
            await settle()
            ann.say(b"2", key="pos")
            await settle()
            assert bob.sink.closed is None
    first, second = files(tmp_path)
    [crashed] = [one for one in logs if one["event"] == "actor.crashed"]
    assert crashed["recording"] == str(first)
    replay, steps = played(first)
    assert replay.ended is not None
    assert (replay.ended.reason, replay.ended.error) == ("crashed", "Boom")
    assert replay.differing == 0
    assert kinds(steps)[-1] == "RunInActor", "the message at fault is the last"
    again, steps = played(second)
    assert again.as_recorded is True
    assert again.rules is not None
    assert [state(again.rules)] == ends
    assert [call.rule for call in steps[0].calls].count("restore") == 2


async def test_a_crash_of_the_rules_crashes_the_replay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with recording(monkeypatch, tmp_path) as harness:
        await harness.joined(1)

        def overfill(instance: InspectableInstance) -> None:
            (seated,) = instance.parts.recovery.seated.values()
            for number in range(100):
                player = replace(seated.player, id=f"p_{number}", session=f"s_{number}")
                instance.parts.rules.restore(seated.visitor, player, instance.parts.now())

        harness.act(overfill)
        await trio.sleep(1)
        await settle()
    replay, steps = played(files(tmp_path)[0])
    assert isinstance(steps[-1].calls[-1].error, AssertionError)
    assert replay.differing == 0
    assert replay.ended is not None
    assert replay.ended.error == "AssertionError"


async def test_a_full_folder_stops_the_recording_and_not_the_instance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with capture_logs() as logs:
        async with recording(monkeypatch, tmp_path, record_limit_bytes=1024 * 1024) as harness:
            ann, bob = await harness.crowd(1, 2)
            for _ in range(30):
                ann.say(b'"' + b"x" * 60_000 + b'"')
            await settle()
            assert len(bob.sink.frames) == 30
    assert [one["reason"] for one in logs if one["event"] == "recording.stopped"] == ["limit"]
    replay, _ = played(files(tmp_path)[0])
    assert replay.ended is not None
    assert replay.ended.reason == "limit"
    assert replay.differing == 0


async def test_nothing_is_recorded_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_harness(monkeypatch) as harness:
        await harness.joined(1)
        kinds: list[type] = []
        harness.act(lambda instance: kinds.append(type(instance.parts.rules)))
        await settle()
    assert [kind.__name__ for kind in kinds] == ["Instance"]
    assert list(tmp_path.iterdir()) == []


async def test_a_recording_holds_on_to_no_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with recording(monkeypatch, tmp_path) as harness:
        ann = await harness.joined(1)
        socket = weakref.ref(ann.sink)
        ann.lose()
        del ann
        await trio.sleep(60)
        await settle()
        gc.collect()
        assert socket() is None
