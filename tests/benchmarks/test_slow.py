"""Judging the slow reader: newest values, order, and how its connection ended."""

from __future__ import annotations

import json

import pytest

from benchmarks.frames import CLOSE, TEXT, Frame, payload
from benchmarks.slow import Reading, outcome, read, turns


def data(sender: int, due_ns: int) -> Frame:
    inner = json.loads(payload(sender, 150)) | {"t": f"{due_ns:019d}"}
    message = {"command": "instance-data", "data": {"player": "p", "data": inner}}
    return Frame(TEXT, json.dumps(message).encode())


def test_messages_are_sorted_by_sender_and_other_frames_ignored() -> None:
    joined = Frame(TEXT, b'{"command":"instance-joined","data":{"player":"p"}}')
    reading = read([data(1, 5), joined, data(2, 6), data(1, 7)])
    assert reading == Reading({1: [5, 7], 2: [6]}, None)
    assert reading.count == 3
    assert reading.in_order


def test_newest_values_are_those_sent_last() -> None:
    reading = Reading({1: [5, 7], 2: [6]}, None)
    assert reading.newest({1: 7, 2: 6}) == 2
    assert reading.newest({1: 7, 2: 8, 3: 9}) == 1


@pytest.mark.parametrize("stamps", [[7, 5], [5, 5]])
def test_going_back_or_twice_is_out_of_order(stamps: list[int]) -> None:
    assert not Reading({1: stamps}, None).in_order


@pytest.mark.parametrize(
    ("close", "count", "gone", "became"),
    [
        (None, 3, False, "all"),
        (4008, 1, True, "closed 4008"),
        (1011, 3, True, "closed 1011"),
        (None, 1, True, "closed without a code"),
        (None, 1, False, "lost 2"),
    ],
)
def test_what_became_of_unkeyed_messages(
    close: int | None, count: int, gone: bool, became: str
) -> None:
    assert outcome(Reading({1: list(range(count))}, close), 3, gone=gone) == became


def test_the_close_frame_is_read() -> None:
    assert read([data(1, 1), Frame(CLOSE, b"\x0f\xa8")]).close == 4008


def test_turns_alternate_without_and_with() -> None:
    assert turns(2, 4.0, 1.0) == [
        (1.0, 5.0, False), (5.0, 9.0, True), (9.0, 13.0, False), (13.0, 17.0, True),
    ]  # fmt: skip
