"""The errors of the actor runtime, as callers of actors see them.

ReiletaError
└── Overloaded 122
    ├── MailboxFull       it has too much to do: nothing was queued
    ├── AskTimedOut       it did not answer in time; it may still handle the request
    └── ActorStopped      it stopped, or stops: the message was not handled
        └── ActorCrashed  it failed while handling the message (16)
NoReply                   a bug: a handler left a request without an answer
"""

from __future__ import annotations

from reileta.errors import Overloaded


class MailboxFull(Overloaded):
    """The actor has as many messages waiting as it may; this one was not queued."""


class AskTimedOut(Overloaded):
    """The actor did not answer in time; it may still handle the request."""


class ActorStopped(Overloaded):
    """The actor stopped before it handled the message."""


class ActorCrashed(ActorStopped):
    """The actor failed while it handled the message; parts of it may have taken effect."""

    code, message = 16, "Internal error"


class NoReply(Exception):
    """A handler returned without answering a request; the actor is treated as crashed."""
