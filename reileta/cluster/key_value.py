"""A bucket of NATS JetStream: values with revisions, written by compare-and-set.

It speaks JetStream's API by plain requests on the bus. The client library's own buckets are not
used: there, an entry whose time is over reads like one without a value, and a key can't be made
again while its marker lasts. Buckets here have no markers, and what watchers would do is done by
`republish`: NATS publishes each accepted write on a plain subject.

A request that was given up can still be carried out later. Revisions mean nothing on another
connection: a server that lost its data numbers its writes anew. So writes name the connection on
which the revision was read.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reileta.cluster.bus import Bus, BusError, BusMessage, BusUnavailable, NoResponders

__all__ = ["Bucket", "BucketGone", "Entry", "KeyValue", "WrongRevision"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY: Final = re.compile(r"[A-Za-z0-9_=-]+(\.[A-Za-z0-9_=-]+)*")

_WRONG_SEQUENCE: Final = frozenset({10071, 10164})
_NO_MESSAGE: Final = 10037
_NO_STREAM: Final = 10059

VALUE_BYTES: Final = 64 * 1024
"""The largest value."""
BUCKET_BYTES: Final = 8 * 1024 * 1024
"""The size of a bucket, unless it says another one."""


class WrongRevision(BusError):
    """The entry has another revision; nothing was written."""


class BucketGone(BusError):
    """The bucket does not exist: it must be made (again)."""


class BucketRefused(BusError):
    """NATS refused an operation on a bucket, for a reason that the operator must mend."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a bucket is like.

    Attributes:
        name: letters, digits, `_` and `-`.
        replicas: the number of servers that keep it.
        republish: the subject under which each accepted write is published, with its key behind.
        in_memory: NATS forgets it when it restarts.
        max_bytes: its size, which NATS reserves for it.
    """

    name: str
    replicas: int = 1
    republish: str | None = None
    in_memory: bool = False
    max_bytes: int = BUCKET_BYTES


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value (None: it was deleted) and revision."""

    value: bytes | None
    revision: int


class KeyValue:
    """A bucket, as a bus shows it. All methods raise BusUnavailable and BucketGone."""

    def __init__(self, bus: Bus, bucket: Bucket) -> None:
        if not _NAME.fullmatch(bucket.name):
            raise ValueError(f"not a name of a bucket: {bucket.name!r}")
        self._bus = bus
        self._bucket = bucket
        self._stream = f"KV_{bucket.name}"
        self._subjects = f"$KV.{bucket.name}."

    async def make(self) -> None:
        """Makes the bucket, if it does not exist. Raises BucketRefused.

        A bucket that exists with other properties stays as it is: another version made it.
        """
        # Not only STREAM.CREATE: NATS would first ask whether there is room for another one.
        if await self._exists():
            return
        # No field that the server may not know: it refuses the whole request.
        config: dict[str, Any] = {
            "name": self._stream,
            "subjects": [self._subjects + ">"],
            "max_msgs_per_subject": 1,
            "max_bytes": self._bucket.max_bytes,
            "max_msg_size": VALUE_BYTES,
            "discard": "new",
            "storage": "memory" if self._bucket.in_memory else "file",
            "num_replicas": self._bucket.replicas,
            "allow_direct": True,
            "allow_msg_ttl": True,
            "deny_delete": True,
        }
        if self._bucket.republish is not None:
            destination = self._bucket.republish + ".>"
            config["republish"] = {"src": self._subjects + ">", "dest": destination}
        answer = await self._api(f"STREAM.CREATE.{self._stream}", config)
        if "error" in answer and not await self._exists():  # another node may have been faster
            raise BucketRefused(f"can't make the bucket: {answer['error'].get('description')}")

    async def _exists(self) -> bool:
        return "error" not in await self._api(f"STREAM.INFO.{self._stream}", {})

    async def write(
        self, key: str, value: bytes, *, revision: int, ttl_s: int, connection: int
    ) -> int:
        """Writes the value if the entry has that revision (0: there is none), on that connection.

        `ttl_s`: the seconds after which NATS removes the entry, up to a second late. Each write
        must set it: one without would keep the entry for ever.

        Returns the new revision. Raises WrongRevision and BucketRefused.
        """
        return await self._put(key, value, {"Nats-TTL": f"{ttl_s}s"}, revision, connection)

    async def delete(self, key: str, *, revision: int, connection: int) -> None:
        """Deletes the entry if it has that revision. It reads as one without a value for a second
        or two, and then as none. Raises WrongRevision and BucketRefused."""
        headers = {"KV-Operation": "DEL", "Nats-TTL": "1s"}
        await self._put(key, b"", headers, revision, connection)

    async def _put(
        self, key: str, value: bytes, headers: dict[str, str], revision: int, connection: int
    ) -> int:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        try:
            message = await self._bus.request(
                self._subject(key), value, headers=headers, connection=connection
            )
        except NoResponders as missing:
            raise BucketGone(self._bucket.name) from missing
        answer = _parsed(message)
        error = answer.get("error")
        if error is None:
            return _whole(answer.get("seq"))
        if error.get("err_code") in _WRONG_SEQUENCE:
            raise WrongRevision(key)
        raise BucketRefused(f"can't write: {error.get('description')}")

    async def read(self, key: str, *, connection: int | None = None) -> Entry | None:
        """The newest entry, as the leader of the bucket has it; None if there is none."""
        answer = await self._api(
            f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._subject(key)}, connection
        )
        error = answer.get("error")
        if error is not None:
            if error.get("err_code") == _NO_MESSAGE:
                return None
            if error.get("err_code") == _NO_STREAM:
                raise BucketGone(self._bucket.name)
            raise BucketRefused(f"can't read: {error.get('description')}")
        message = answer["message"]
        deleted = False
        try:
            lines = base64.b64decode(message.get("hdrs", "")).decode()
            deleted = "KV-Operation:" in lines or "Nats-Marker-Reason:" in lines
            value = base64.b64decode(message.get("data", ""))
        except (binascii.Error, UnicodeDecodeError) as broken:
            raise BusUnavailable("an answer that can't be read") from broken
        return Entry(None if deleted else value, _whole(message["seq"]))

    async def read_all(self, under: str = "") -> dict[str, Entry]:
        """All entries, from one request: at most 1,024. They may be a moment old: any replica
        answers. `under`: only those whose key begins so, up to a dot."""
        wanted = self._subject(under) + ".>" if under else self._subjects + ">"
        try:
            answers = await self._bus.request_all(
                f"$JS.API.DIRECT.GET.{self._stream}",
                json.dumps({"multi_last": [wanted]}).encode(),
                _is_last,
            )
        except NoResponders as error:
            raise BucketGone(self._bucket.name) from error
        status = answers[-1].headers.get("Status")
        if status not in ("204", "404"):
            raise BucketRefused(f"can't read: {answers[-1].headers.get('Description')}")
        entries = {}
        for message in answers[:-1]:
            headers = message.headers
            key = headers.get("Nats-Subject", "").removeprefix(self._subjects)
            deleted = "KV-Operation" in headers or "Nats-Marker-Reason" in headers
            revision = _whole(headers.get("Nats-Sequence"))
            entries[key] = Entry(None if deleted else message.data, revision)
        return entries

    async def _api(
        self, call: str, fields: Mapping[str, object], connection: int | None = None
    ) -> dict[str, Any]:
        """Raises BusUnavailable also if JetStream does not answer: it is not enabled, or it has no
        leader."""
        try:
            message = await self._bus.request(
                f"$JS.API.{call}", json.dumps(fields).encode(), connection=connection
            )
        except NoResponders as error:
            raise BusUnavailable("JetStream does not answer") from error
        return _parsed(message)

    def _subject(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a key: {key!r}")
        return self._subjects + key


def _is_last(message: BusMessage) -> bool:
    return "Status" in message.headers


def _parsed(message: BusMessage) -> dict[str, Any]:
    try:
        answer = json.loads(message.data)
    except ValueError as error:
        raise BusUnavailable("an answer that can't be read") from error
    if not isinstance(answer, dict):
        raise BusUnavailable("an answer that can't be read")
    return answer


def _whole(number: object) -> int:
    try:
        return int(str(number))
    except ValueError as error:
        raise BusUnavailable("an answer that can't be read") from error
