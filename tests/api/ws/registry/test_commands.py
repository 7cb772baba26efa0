"""Every command of `/api/ws` is declared as the server takes it and the documents tell of it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from msgspec import Raw

from api.openapi.websockets import Command
from api.ws.registry.commands import COMMANDS
from api.ws.registry.messages import (
    InstanceData,
    ModerateData,
    PingData,
    TokenData,
    TopicData,
    is_deep,
    parse,
    parse_data,
)
from reileta.errors import MessageInvalid
from reileta.protocol import commands
from tests.test_docs import constants, sections

TAKEN: dict[str, Any] = {
    commands.PING: PingData,
    commands.AUTHENTICATE: TokenData,
    commands.SUBSCRIBE: TopicData,
    commands.UNSUBSCRIBE: TopicData,
    commands.INSTANCE_JOIN: InstanceData,
    commands.INSTANCE_LEAVE: InstanceData,
    commands.INSTANCE_MODERATE: ModerateData,
}


def test_every_command_is_declared_once() -> None:
    names = [command.name for command in COMMANDS]
    assert len(names) == len(set(names))
    assert set(names) == constants(commands)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.name)
def test_its_example_is_one_that_the_server_takes(command: Command) -> None:
    message = parse(json.dumps(command.example).encode())
    assert message.command == command.name
    assert message.wanted is not None
    if command.name == commands.INSTANCE_DATA:
        assert bytes(message.data)
        assert not is_deep(bytes(message.data))
    else:
        assert set(json.loads(bytes(message.data))) <= set(
            TAKEN[command.name].__struct_encode_fields__
        )
        data = parse_data(message.data, TAKEN[command.name])
        if isinstance(data, ModerateData):
            data.measure()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.name)
def test_it_is_described_by_what_decodes_it(command: Command) -> None:
    if command.name == commands.INSTANCE_DATA:
        assert command.data is Any
    else:
        taken = TAKEN[command.name]
        assert command.data.__struct_encode_fields__ == taken.__struct_encode_fields__
        with pytest.raises(MessageInvalid):
            parse_data(Raw(b"5"), taken)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.name)
def test_its_errors_are_those_that_the_documents_name(command: Command) -> None:
    text = " ".join(sections()[f"`{command.name}`"].split())
    told = re.search(r"Errors: ((?:\([^)]*\)|[^.(])*)", text)
    numbers = re.sub(r"\([^)]*\)", "", told[1]) if told else "119"
    codes = {error.code for error in command.errors}
    assert codes == {int(one) for one in re.findall(r"\b\d+\b", numbers)}
