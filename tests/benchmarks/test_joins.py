"""Judging a join storm: who was told of whom."""

from __future__ import annotations

import json

import pytest

from benchmarks.connect import Client
from benchmarks.errors import BenchmarkError
from benchmarks.joins import Joiner, Known, complete, listed_all_before, read


def storm(*listed: str, later: tuple[str, ...]) -> dict[str, Known]:
    """Joiners a, b, c, …: what each one's answer listed, and what came later, as letters."""
    names = "abcdefgh"[: len(listed)]
    return {
        name: Known(name, frozenset(players), tuple(after))
        for name, players, after in zip(names, listed, later, strict=True)
    }


def test_one_by_one_is_complete() -> None:
    told = storm("a", "ab", "abc", later=("bc", "c", ""))
    assert complete(told)
    assert listed_all_before(told) == 3


def test_two_at_once_that_list_each_other_are_complete() -> None:
    assert complete(storm("ab", "ab", later=("", "")))


@pytest.mark.parametrize(
    "told",
    [
        storm("a", "ab", "bc", later=("bc", "c", "")),
        storm("a", "ab", "abc", later=("b", "c", "")),
        storm("a", "ab", "abc", later=("bcb", "c", "")),
        storm("a", "ab", "abc", later=("bc", "ac", "")),
    ],
    ids=["left out of an answer", "an event is missing", "told twice", "listed and told"],
)
def test_what_is_not_complete(told: dict[str, Known]) -> None:
    assert not complete(told)


def test_an_answer_that_leaves_out_an_earlier_one_is_seen() -> None:
    assert listed_all_before(storm("a", "ab", "bc", later=("bc", "c", ""))) == 1


def frame(**fields: object) -> bytes:
    data = json.dumps(fields, separators=(",", ":")).encode()
    return b"\x81\x7e" + len(data).to_bytes(2) + data


ANSWER = frame(
    state="join", command="instance-join", data={"player": "b", "players": [{"player": "a"}]}
)
JOINED = frame(command="instance-joined", data={"player": "c"})


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_a_joiner_counts_as_bytes_come_in(client: Client, piece: int) -> None:
    joiner = Joiner(client)
    data = ANSWER + JOINED + JOINED
    assert sum(joiner.take(data[at : at + piece]) for at in range(0, len(data), piece)) == 2
    assert joiner.answered
    assert joiner.events == 2


def test_reading_what_a_joiner_was_told(client: Client) -> None:
    joiner = Joiner(client)
    joiner.take(ANSWER + JOINED)
    assert read(joiner) == Known("b", frozenset("a"), ("c",))


def test_a_refused_or_unanswered_join_is_said(client: Client) -> None:
    refused, silent = Joiner(client), Joiner(client)
    refused.take(frame(state="join", error={"code": 48, "message": "Instance is full"}))
    with pytest.raises(BenchmarkError, match="Instance is full"):
        read(refused)
    with pytest.raises(BenchmarkError, match="never answered"):
        read(silent)
