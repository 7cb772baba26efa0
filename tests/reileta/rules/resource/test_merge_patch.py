"""RFC 7396, by its own examples and its properties."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given

from reileta.rules.resource.json_values import Json, decode, encode, same
from reileta.rules.resource.merge_patch import Growth, apply, apply_measured, apply_object, diff
from tests.reileta.json_strategies import patches, values

# The table of RFC 7396, appendix A: original, patch, result.
RFC = """
{"a":"b"}           | {"a":"c"}                     | {"a":"c"}
{"a":"b"}           | {"b":"c"}                     | {"a":"b","b":"c"}
{"a":"b"}           | {"a":null}                    | {}
{"a":"b","b":"c"}   | {"a":null}                    | {"b":"c"}
{"a":["b"]}         | {"a":"c"}                     | {"a":"c"}
{"a":"c"}           | {"a":["b"]}                   | {"a":["b"]}
{"a":{"b":"c"}}     | {"a":{"b":"d","c":null}}      | {"a":{"b":"d"}}
{"a":[{"b":"c"}]}   | {"a":[1]}                     | {"a":[1]}
["a","b"]           | ["c","d"]                     | ["c","d"]
{"a":"b"}           | ["c"]                         | ["c"]
{"a":"foo"}         | null                          | null
{"a":"foo"}         | "bar"                         | "bar"
{"e":null}          | {"a":1}                       | {"a":1,"e":null}
[1,2]               | {"a":"b","c":null}            | {"a":"b"}
{}                  | {"a":{"bb":{"ccc":null}}}     | {"a":{"bb":{}}}
"""


@pytest.mark.parametrize("row", RFC.strip().splitlines())
def test_the_examples_of_the_rfc(row: str) -> None:
    target, patch, result = (decode(cell.strip(), limit_bytes=99) for cell in row.split("|"))
    assert same(apply(target, patch), result)


@given(values, values)
def test_nothing_given_is_changed(target: Json, patch: Json) -> None:
    before = deepcopy((target, patch))
    apply(target, patch)
    assert (target, patch) == before


@given(values, values)
def test_a_patch_does_the_same_twice_as_once(target: Json, patch: Json) -> None:
    once = apply(target, patch)
    assert same(apply(once, patch), once)


@given(patches, patches)
def test_the_result_is_no_longer_than_both_together(
    target: dict[str, Json], patch: dict[str, Json]
) -> None:
    merged = encode(apply_object(target, patch)).encode()
    assert len(merged) <= len(encode(target).encode()) + len(encode(patch).encode())


@given(patches, patches)
def test_the_difference_of_two_states_leads_from_one_to_the_other(
    first: dict[str, Json], second: dict[str, Json]
) -> None:
    before, after = apply_object({}, first), apply_object({}, second)  # as states come about
    patch = diff(before, after)
    assert same(apply_object(before, patch), after)
    assert (patch == {}) is same(before, after)


def test_the_difference_tells_numbers_from_booleans() -> None:
    assert diff({"a": 1, "b": {"c": 0}, "d": 2}, {"a": True, "b": {"c": 0}}) == {
        "a": True,
        "d": None,
    }


@given(patches, patches)
def test_growth_is_measured_without_looking_at_the_whole(
    first: dict[str, Json], patch: dict[str, Json]
) -> None:
    target = apply_object({}, first)
    merged, growth = apply_measured(target, patch)
    assert same(merged, apply_object(target, patch))
    before, after = encode(target).encode(), encode(merged).encode()
    assert growth == Growth(len(after) - len(before), count(merged) - count(target))


def count(value: Json) -> int:
    """Values in a value, itself included."""
    if isinstance(value, dict):
        return 1 + sum(map(count, value.values()))
    return 1 + sum(map(count, value)) if isinstance(value, list) else 1
