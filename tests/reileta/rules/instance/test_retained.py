from __future__ import annotations

import pytest

from reileta.errors import MessageInvalid
from reileta.rules.instance.retained import Retained, RetainedValues


def values(keys: int = 3, size: int = 100) -> RetainedValues:
    return RetainedValues(keys_limit=keys, bytes_limit=size)


def test_the_newest_of_each_player_and_key() -> None:
    kept = values()
    kept.keep("p_1", "a", 1, b"1")
    kept.keep("p_1", "b", None, b"2")
    kept.keep("p_2", "a", 1.5, b"3")
    kept.keep("p_1", "a", 2, b"4")
    assert list(kept) == [
        Retained("p_1", "a", 2, b"4"),
        Retained("p_1", "b", None, b"2"),
        Retained("p_2", "a", 1.5, b"3"),
    ]
    kept.forget("p_1")
    assert list(kept) == [Retained("p_2", "a", 1.5, b"3")]
    kept.forget("p_9")


@pytest.mark.parametrize(
    ("before", "after", "rolls_back"),
    [(5, 4, True), (5, 5, False), (5, 5.1, False), (None, 1, False), (5, None, False)],
)
def test_rollback(before: float | None, after: float | None, rolls_back: bool) -> None:
    kept = values()
    assert not kept.rolls_back("p_1", "a", after)
    kept.keep("p_1", "a", before, b"1")
    assert kept.rolls_back("p_1", "a", after) is rolls_back
    assert not kept.rolls_back("p_1", "b", after)
    assert not kept.rolls_back("p_2", "a", after)
    assert not kept.rolls_back("p_1", "a", after, series=1)


def test_keys_are_bounded_for_each_player() -> None:
    kept = values(keys=2)
    kept.keep("p_1", "a", None, b"1")
    kept.keep("p_1", "b", None, b"1")
    with pytest.raises(MessageInvalid) as caught:
        kept.keep("p_1", "c", None, b"1")
    assert caught.value.details[0].field == "key"
    kept.keep("p_1", "a", None, b"2")
    kept.keep("p_2", "c", None, b"1")
    assert len(list(kept)) == 3


def test_bytes_are_bounded_for_each_player() -> None:
    kept = values(size=10)
    kept.keep("p_1", "a", None, b"x" * 9)  # 10 with its key
    with pytest.raises(MessageInvalid) as caught:
        kept.keep("p_1", "a", None, b"x" * 10)
    assert caught.value.details[0].field == "data"
    kept.keep("p_1", "a", None, b"x" * 4)
    kept.keep("p_1", "b", None, b"x" * 4)
    with pytest.raises(MessageInvalid):
        kept.keep("p_1", "c", None, b"")
    kept.forget("p_1")
    kept.keep("p_1", "c", None, b"x" * 9)


def test_all_players_together_have_a_limit_too() -> None:
    values = RetainedValues(keys_limit=4, bytes_limit=10, total_limit=15)
    values.keep("p_1", "a", None, b"123456789")
    values.keep("p_2", "a", None, b"1234")
    with pytest.raises(MessageInvalid, match="per instance"):
        values.keep("p_3", "a", None, b"")
    with pytest.raises(MessageInvalid):
        values.keep("p_2", "a", None, b"12345")
    values.keep("p_1", "a", None, b"12345678")
    values.keep("p_3", "a", None, b"")
    values.forget("p_1")
    values.keep("p_4", "a", None, b"12345678")
    assert [one.player for one in values] == ["p_2", "p_3", "p_4"]


def test_null_gives_place_and_bytes_back() -> None:
    kept = RetainedValues(keys_limit=2, bytes_limit=10, total_limit=10)
    kept.keep("p_1", "a", 5, b"1234")
    kept.keep("p_1", "b", None, b"1234")
    for key in ("a", "c"):  # "c" is not there, and needs no place
        kept.keep("p_1", key, 6, b"null")
    assert list(kept) == [Retained("p_1", "b", None, b"1234")]
    assert kept.total_bytes == 5
    assert not kept.rolls_back("p_1", "a", 1), "its time is gone, too"
    kept.keep("p_1", "c", None, b"1234")
    kept.keep("p_1", "b", None, b"null")
    kept.keep("p_1", "c", None, b"null")
    assert (list(kept), list(kept.by_player()), kept.total_bytes) == ([], [], 0)
    kept.keep("p_2", "a", None, b"123456789")
    kept.keep("p_1", "a", None, b"null")
    kept.forget("p_1")
    assert kept.total_bytes == 10
