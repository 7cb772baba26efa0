"""The generic actor runtime; `actor.py` has the contract."""

from actors.runtime.actor import Actor, Context, Restart, Spec
from actors.runtime.ask import ask, ask_timeout
from actors.runtime.deadline import Deadline
from actors.runtime.errors import ActorCrashed, ActorStopped, MailboxFull
from actors.runtime.instruments import Instruments, NoInstruments
from actors.runtime.jobs import SerialJobs
from actors.runtime.mailbox import Recipient, Ref
from actors.runtime.message import Message, Request
from actors.runtime.registry import Registry
from actors.runtime.supervisor import Supervisor
from actors.runtime.timers import Timer, Timers

__all__ = [
    "Actor",
    "ActorCrashed",
    "ActorStopped",
    "Context",
    "Deadline",
    "Instruments",
    "MailboxFull",
    "Message",
    "NoInstruments",
    "Recipient",
    "Ref",
    "Registry",
    "Request",
    "Restart",
    "SerialJobs",
    "Spec",
    "Supervisor",
    "Timer",
    "Timers",
    "ask",
    "ask_timeout",
]
