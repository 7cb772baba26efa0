"""What is remembered holds for its generation, and for so long; and there is never too much."""

from __future__ import annotations

from reileta.bounded_cache import BoundedCache


class Seconds:
    """A clock that stands still until it is told to go on."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_value_is_given_back_while_its_generation_is_the_current_one() -> None:
    remembered: BoundedCache[str] = BoundedCache(1000, 10)
    remembered.put("a", 1, "one", 10)
    assert remembered.get("a", 1) == "one"
    assert remembered.get("a", 2) is None
    assert remembered.get("b", 1) is None
    remembered.put("a", 2, "two", 10)
    assert remembered.get("a", 2) == "two"
    assert remembered.get("a", 1) is None


def test_of_an_unknown_generation_nothing_is_kept() -> None:
    remembered: BoundedCache[str] = BoundedCache(1000, 10)
    remembered.put("a", 1, "one", 10)
    assert remembered.get("a", None) is None
    remembered.put("a", None, "two", 10)
    assert remembered.get("a", None) is None
    assert remembered.get("a", 1) is None
    assert (len(remembered), remembered.held_bytes) == (0, 0)


def test_a_value_ends_with_its_time() -> None:
    seconds = Seconds()
    remembered: BoundedCache[str] = BoundedCache(1000, 10, seconds)
    remembered.put("a", 1, "one", 10)
    seconds.now_s = 9.9
    assert remembered.get("a", 1) == "one"
    seconds.now_s = 10
    assert remembered.get("a", 1) is None
    remembered.put("a", 1, "one", 10)
    seconds.now_s = 19.9
    assert remembered.get("a", 1) == "one"


def test_over_the_limit_the_one_asked_for_longest_ago_goes() -> None:
    remembered: BoundedCache[int] = BoundedCache(800, 10)
    for number in range(8):
        remembered.put(number, 1, number, 100)
    assert remembered.get(0, 1) == 0
    remembered.put(8, 1, 8, 50)
    assert remembered.get(1, 1) is None
    assert [remembered.get(number, 1) for number in (0, 2, 8)] == [0, 2, 8]
    assert remembered.held_bytes == 750
    remembered.put(8, 1, 8, 70)
    assert remembered.held_bytes == 770


def test_what_is_large_is_not_kept_and_what_it_replaces_is_gone() -> None:
    remembered: BoundedCache[str] = BoundedCache(800, 10)
    remembered.put("a", 1, "small", 100)
    remembered.put("a", 2, "large", 101)
    assert remembered.get("a", 1) is None
    assert remembered.get("a", 2) is None
    assert remembered.held_bytes == 0


def test_a_value_can_have_a_time_of_its_own() -> None:
    seconds = Seconds()
    remembered: BoundedCache[str] = BoundedCache(1000, 10, seconds)
    remembered.put("a", 1, "one", 10, ttl_s=2)
    seconds.now_s = 1.9
    assert remembered.get("a", 1) == "one"
    seconds.now_s = 2
    assert remembered.get("a", 1) is None


def test_values_are_dropped_by_their_keys() -> None:
    remembered: BoundedCache[str] = BoundedCache(1000, 10)
    for key in ("ab", "b", "ac"):
        remembered.put(key, 1, key, 10)
    remembered.drop(lambda key: key.startswith("a"))
    assert [remembered.get(key, 1) for key in ("ab", "b", "ac")] == [None, "b", None]
    assert (len(remembered), remembered.held_bytes) == (1, 10)


def test_values_whose_time_is_over_make_way() -> None:
    seconds = Seconds()
    remembered: BoundedCache[int] = BoundedCache(1_000_000, 10, seconds)
    for number in range(1_000):
        seconds.now_s = float(number)
        remembered.put(number, 1, number, 100)
    assert len(remembered) == 10
    assert remembered.held_bytes == 1_000
