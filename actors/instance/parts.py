"""The parts that all helpers of an instance's actor share."""

from __future__ import annotations

from dataclasses import dataclass

from actors.delivery.fanout import Fanout
from actors.directory import Directory
from actors.instance.config import InstanceConfig
from actors.instance.frames import InstanceFrames
from actors.instance.messages import InstanceMessage
from actors.instance.publisher import Publisher
from actors.instance.recovery import RecoveryState
from actors.runtime import Context
from actors.runtime.clock_steps import StepWatch
from reileta.rules.instance.instance import Instance


@dataclass(frozen=True, slots=True)
class InstanceParts:
    """Made once for each incarnation, before its helpers; each helper takes it.

    Attributes:
        id: the instance's id.
        config: what all instances of the node share.
        context: the runtime's services for this incarnation.
        recovery: what outlives a crash.
        rules: the instance itself; the actor and its helpers call the rules.
        fanout: the frames of the current drain.
        frames: encodes the instance's frames.
        publisher: publishes to the hub.
        directory: the node's presence and occupancy.
        steps: notices that the clock was set.
    """

    id: str
    config: InstanceConfig
    context: Context[InstanceMessage]
    recovery: RecoveryState
    rules: Instance
    fanout: Fanout
    frames: InstanceFrames
    publisher: Publisher
    directory: Directory
    steps: StepWatch

    @classmethod
    def make(
        cls,
        config: InstanceConfig,
        context: Context[InstanceMessage],
        recovery: RecoveryState,
        rules: Instance,
        fanout: Fanout,
    ) -> InstanceParts:
        """The parts around the rules of an incarnation."""
        return cls(
            id=recovery.record.id,
            config=config,
            context=context,
            recovery=recovery,
            rules=rules,
            fanout=fanout,
            frames=InstanceFrames(rules),
            publisher=Publisher(
                rules,
                hub=config.hub,
                directory=config.directory,
                server=config.server,
                relay=config.relay,
            ),
            directory=config.directory,
            steps=StepWatch(config.clock),
        )

    def now(self) -> int:
        """The time in ms, as the rules count it. If the clock was set, they know from here on."""
        now = self.config.clock.now_ms()
        step_ms = self.steps.look(now)
        if step_ms:
            self.rules.clock_was_set(step_ms)
        return now
