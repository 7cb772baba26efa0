"""Every command of `/api/ws` is declared as the server takes it and the documents describe it."""

from __future__ import annotations

import json
import re

import pytest

from api.ws.declarations import Command
from api.ws.registry.commands import COMMANDS, DATA_DEPTH
from api.ws.registry.connection import parse, parse_data
from api.ws.registry.inputs import ModerateInput
from reileta.protocol import commands
from reileta.protocol.input_types import Input
from reileta.rules.resource.json_values import is_deeper
from tests.test_docs import constants, sections


def test_every_name_of_a_command_is_declared() -> None:
    assert COMMANDS.names == constants(commands)


@pytest.mark.parametrize("command", list(COMMANDS), ids=lambda one: one.name)
def test_its_example_is_one_that_the_server_takes(command: Command) -> None:
    message = parse(json.dumps(command.example).encode())
    assert message.command == command.name
    assert message.wanted is not None
    if command.takes is None:
        assert bytes(message.data)
        assert not is_deeper(bytes(message.data), DATA_DEPTH)
    else:
        assert issubclass(command.takes, Input)
        assert set(json.loads(bytes(message.data))) <= set(command.takes.model_fields)
        data = parse_data(message.data, command.takes)
        if isinstance(data, ModerateInput):
            data.request()


@pytest.mark.parametrize("command", list(COMMANDS), ids=lambda one: one.name)
def test_either_a_handler_or_a_relay_carries_it_out(command: Command) -> None:
    assert (command.handler is None) == (command.name in COMMANDS.relays)


@pytest.mark.parametrize("command", list(COMMANDS), ids=lambda one: one.name)
def test_its_errors_are_those_that_the_documents_name(command: Command) -> None:
    text = " ".join(sections()[f"`{command.name}`"].split())
    told = re.search(r"Errors: ((?:\([^)]*\)|[^.(])*)", text)
    numbers = re.sub(r"\([^)]*\)", "", told[1]) if told else "119"
    codes = {error.code for error in command.errors}
    assert codes == {int(one) for one in re.findall(r"\b\d+\b", numbers)}
