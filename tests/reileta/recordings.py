"""Recordings made in memory, for the tests of what is done with them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from reileta.diagnostics import recording
from reileta.diagnostics.recording import Called, Ended, Opened, Received, Record
from reileta.diagnostics.recording_instance import RecordingInstance
from reileta.records import Ban
from reileta.rules.instance.instance import Instance, InstanceLimits
from tests.reileta.instances import OWNER, record_of

BEGAN = 1_790_000_000_000


class MemoryRecording:
    """A tape that keeps its records, and the file that they make."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.data = recording.MAGIC
        self.put(Opened("i_1", BEGAN, "0.1.0"))

    def put(self, record: Record) -> None:
        self.records.append(record)
        self.data += recording.encode(record)

    def called(
        self,
        rule: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        ids: Sequence[str],
        raised: str | None,
    ) -> None:
        self.put(Called(rule, args, kwargs, ids, raised))

    def received(self, kind: str, id_: int, *, ms: int = 0, **more: Any) -> None:
        fields = {"cause": 0, "trace": 0, "socket": None, **more}
        self.put(Received(BEGAN + ms, kind, id_, **fields))

    def end(self, reason: recording.Reason = "stopped", **more: Any) -> None:
        self.put(Ended(BEGAN + 1000, reason, **more))

    @property
    def calls(self) -> list[Called]:
        return [one for one in self.records if isinstance(one, Called)]

    def file(self) -> io.BytesIO:
        return io.BytesIO(self.data)


def taped(
    tape: MemoryRecording,
    *,
    access: str = "avr:public",
    capacity: int = 4,
    bans: Sequence[Ban] = (),
    **limits: int,
) -> Instance:
    """An instance of `OWNER` on the tape; the numbers of its players' ids count from 1."""
    made: list[str] = []

    def new_player_id() -> str:
        made.append(f"p_{len(made) + 1}")
        return made[-1]

    record = record_of(access, capacity=capacity)
    return RecordingInstance(
        tape,
        record,
        owner=OWNER,
        bans=iter(bans),
        limits=InstanceLimits(**limits),
        now=BEGAN,
        new_player_id=new_player_id,
    )
