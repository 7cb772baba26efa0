"""An instance that records its messages and the calls of its rules on a tape.

Only servers that record use this; `InstanceActor` does not know of it. A tape begins and ends with
its incarnation, so the file of a crash ends with the crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from actors.delivery.sink import Sink
from actors.instance.actor import InstanceActor
from actors.instance.config import InstanceConfig
from actors.instance.messages import InstanceMessage
from actors.instance.recording_writer import RecordingWriter, Tape
from actors.instance.recovery import RecoveryState
from actors.runtime.mailbox import Envelope
from actors.runtime.message import Message, WorkDone
from actors.runtime.trace import current
from reileta import records
from reileta.diagnostics.recording_instance import RecordingInstance
from reileta.diagnostics.replay import digest
from reileta.rules.instance.instance import Instance

_SINK: Final = "sink"
"""The field for the socket, in each message that has one."""


class RecordedInstanceActor(InstanceActor):
    """One live instance, recorded."""

    def __init__(
        self, recovery: RecoveryState, config: InstanceConfig, recorder: RecordingWriter
    ) -> None:
        super().__init__(recovery, config)
        self._recorder = recorder
        self._tape: Tape | None = None
        self._sockets: WeakKeyDictionary[Sink, int] = WeakKeyDictionary()
        self._numbered = 0

    def _make_rules(self, record: records.InstanceRecord, **rest: Any) -> Instance:
        self._tape = self._recorder.begin(self._id)
        return RecordingInstance(self._tape, record, **rest)

    def receive_now(self, message: InstanceMessage) -> bool:
        return False  # it has no envelope, whose ids the tape needs

    async def receive(self, message: InstanceMessage) -> None:
        self._record(message)
        await super().receive(message)

    def work_done(self, done: WorkDone[Any]) -> None:
        self._record(done)
        super().work_done(done)

    def _record(self, message: Message) -> None:
        tape = self._tape
        assert tape is not None
        if not tape.over:
            envelope = cast(Envelope[Message], current.get())
            sink: Sink | None = getattr(message, _SINK, None)
            tape.received(
                type(message).__name__,
                envelope.id,
                envelope.cause,
                envelope.trace,
                None if sink is None else self._number(sink),
            )

    def _number(self, sink: Sink) -> int:
        """Tells sockets apart, without holding on to them."""
        number = self._sockets.get(sink)
        if number is None:
            self._numbered += 1
            number = self._sockets[sink] = self._numbered
        return number

    async def on_stop(self) -> None:
        await super().on_stop()
        if self._tape is not None and not self._tape.over:
            self._tape.end("stopped", state=digest(self.parts.rules))

    def post_mortem(self, error: Exception) -> Mapping[str, object]:
        if self._tape is None:
            return super().post_mortem(error)
        self._tape.end("crashed", type(error).__name__)
        return {**super().post_mortem(error), "recording": str(self._tape.path)}
