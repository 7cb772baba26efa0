"""The actors' messages: closed unions of frozen values."""

from __future__ import annotations

import inspect
from typing import get_args

from actors import membership
from actors.hub import messages as hub_messages
from actors.instance import messages
from actors.runtime.message import Message
from actors.session import messages as session_messages

UNIONS = {
    "instance": get_args(messages.InstanceMessage),
    "session": get_args(session_messages.SessionMessage),
    "hub": get_args(hub_messages.HubMessage),
}


def defined() -> set[type[Message]]:
    return {
        one
        for module in (messages, session_messages, hub_messages, membership)
        for _, one in inspect.getmembers(module, inspect.isclass)
        if issubclass(one, Message) and one.__module__ == module.__name__
    }


def test_every_message_belongs_to_exactly_one_actor() -> None:
    listed = [one for union in UNIONS.values() for one in union]
    assert len(listed) == len(set(listed))
    assert set(listed) == defined()
