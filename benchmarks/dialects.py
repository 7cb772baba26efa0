"""How to talk to each server: Reileta's WebSocket protocol, and those of the peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import msgspec

from benchmarks.connect import Dialect, Target
from benchmarks.errors import BenchmarkError

NAMES: Final = ("reileta", "plain", "socketio")
JOIN_STATE: Final = "join"


class Problem(msgspec.Struct):
    code: int
    message: str


class Message(msgspec.Struct):
    """A message of Reileta on a WebSocket."""

    command: str = ""
    state: str | int | None = None
    subgroup: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: Problem | None = None


class _Object(msgspec.Struct):
    id: str


class _Envelope(msgspec.Struct):
    message: str
    data: msgspec.Raw = msgspec.Raw(b"null")


_MESSAGES: Final = msgspec.json.Decoder(Message)


def decode(message: bytes) -> Message:
    """Raises BenchmarkError if it is not a message of Reileta."""
    try:
        return _MESSAGES.decode(message)
    except msgspec.DecodeError as error:
        raise BenchmarkError(f"the server sent an invalid message: {error}") from error


@dataclass(frozen=True)
class Reileta:
    """Bots with a token each, authenticated at the upgrade; `instances` are joined in groups.

    Connection `number` uses token `number` and joins instance `number // group`.
    """

    tokens: Sequence[str]
    instances: Sequence[str] = ()
    group: int = 1
    key: str | None = None
    """The `key` that data is sent with; None for data without a key."""

    def path(self, number: int) -> str:
        return "/api/ws"

    def headers(self, number: int) -> dict[str, str]:
        return authorization(self.tokens[number % len(self.tokens)])

    def greeting(self, number: int) -> bytes | None:
        if not self.instances:
            return None
        return join(self.instance(number))

    def greeted(self, number: int, message: bytes) -> bool:
        return is_join_answer(message)

    def message(self, number: int, payload: bytes) -> bytes:
        key = "" if self.key is None else f'"key":"{self.key}",'
        head = f'{{"command":"instance-data","subgroup":"{self.instance(number)}",{key}"data":'
        return head.encode() + payload + b"}"

    def instance(self, number: int) -> str:
        return self.instances[number // self.group]


@dataclass(frozen=True)
class Plain:
    """The `ws` and Bun peers: the path is the room, and messages are relayed unchanged."""

    group: int

    def path(self, number: int) -> str:
        return f"/room-{number // self.group}"

    def headers(self, number: int) -> dict[str, str]:
        return {}

    def greeting(self, number: int) -> bytes | None:
        return None

    def greeted(self, number: int, message: bytes) -> bool:
        return True

    def message(self, number: int, payload: bytes) -> bytes:
        return payload


@dataclass(frozen=True)
class SocketIo:
    """Socket.IO's protocol 5 over Engine.IO 4, with WebSocket only."""

    group: int

    def path(self, number: int) -> str:
        return f"/socket.io/?EIO=4&transport=websocket&room=room-{number // self.group}"

    def headers(self, number: int) -> dict[str, str]:
        return {}

    def greeting(self, number: int) -> bytes | None:
        return b"40"

    def greeted(self, number: int, message: bytes) -> bool:
        return message.startswith(b"40")

    def message(self, number: int, payload: bytes) -> bytes:
        return b'42["data",' + payload + b"]"


def choose(
    name: str, target: Target, tokens: Sequence[str], players: int, group: int, instance: str | None
) -> Dialect:
    """The dialect of that name, with rooms of `group` players each.

    For Reileta it creates the instances (over HTTP, as the first bot) unless one is given.
    """
    if name == "plain":
        return Plain(group)
    if name == "socketio":
        return SocketIo(group)
    if name != "reileta":
        raise BenchmarkError(f"unknown protocol {name!r}: one of {', '.join(NAMES)}")
    if len(tokens) < players:
        raise BenchmarkError(f"{players} players need {players} tokens; the file has {len(tokens)}")
    rooms = -(-players // group)
    if instance is not None and rooms > 1:
        raise BenchmarkError("a named instance is one room: use --group 0")
    ids = [instance] if instance else make_instances(target, tokens[0], rooms, max(group, 2))
    return Reileta(tokens, ids, group)


def read_tokens(path: Path | None) -> list[str]:
    """Reads a token per line, as `reileta bots create` writes them; none without a file."""
    if path is None:
        return []
    try:
        tokens = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise BenchmarkError(f"cannot read the tokens: {error}") from error
    if not tokens:
        raise BenchmarkError(f"{path} contains no token")
    return tokens


def authorization(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "User-Agent": "AVR(User)"}


def join(instance: str) -> bytes:
    return (
        f'{{"state":"{JOIN_STATE}","command":"instance-join","data":{{"instance":"{instance}"}}}}'
    ).encode()


def is_join_answer(message: bytes) -> bool:
    """Raises BenchmarkError if the join was refused."""
    answer = decode(message)
    if answer.error is not None:
        raise BenchmarkError(f"the join was refused: {answer.error.code} {answer.error.message}")
    return answer.state == JOIN_STATE


def make_instances(target: Target, token: str, count: int, capacity: int) -> list[str]:
    """Creates a world and `count` public instances of it, and returns their ids.

    The bot of the token owns them. Raises BenchmarkError if the server refuses.
    """
    with httpx.Client(base_url=target.http, headers=authorization(token), timeout=30) as http:
        world = _put(http, "/api/worlds", {"title": "Benchmark", "capacity": capacity})
        body = {"world": world, "title": "Benchmark", "capacity": capacity, "tags": ["avr:public"]}
        return [_put(http, "/api/instances", body) for _ in range(count)]


def _put(http: httpx.Client, path: str, body: dict[str, object]) -> str:
    try:
        response = http.put(path, json=body)
        envelope = msgspec.json.decode(response.content, type=_Envelope)
        if response.status_code != 200:
            raise BenchmarkError(f"PUT {path}: {response.status_code} {envelope.message}")
        return msgspec.json.decode(envelope.data, type=_Object).id
    except httpx.HTTPError as error:
        raise BenchmarkError(f"PUT {path}: {error}") from error
    except msgspec.MsgspecError as error:
        raise BenchmarkError(f"PUT {path}: an unexpected answer: {error}") from error
