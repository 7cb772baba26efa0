"""The input of `instance-interest`: what it takes, and which field it names else."""

from __future__ import annotations

import msgspec
import pytest

from api.ws.registry.connection import parse_data
from api.ws.registry.inputs import InterestInput
from reileta.errors import MessageInvalid
from reileta.rules.instance.interest import Interest

ONE = "p_00000000-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("data", "interest"),
    [
        ({}, Interest()),
        ({"rate": None, "near": None, "far_rate": None}, Interest()),
        ({"rate": 5}, Interest(5)),
        ({"near": [], "far_rate": 0.1}, Interest(None, frozenset(), 0.1)),
        ({"near": [ONE, ONE], "far_rate": 1}, Interest(None, frozenset({ONE}), 1)),
        ({"rate": 20, "near": 7.5, "far_rate": 1}, Interest(20, 7.5, 1)),
        ({"near": 7, "far_rate": 100}, Interest(None, 7.0, 100)),
    ],
)
def test_what_it_takes(data: object, interest: Interest) -> None:
    assert parse_data(msgspec.Raw(msgspec.json.encode(data)), InterestInput).interest() == interest


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"rate": 0}, "data.rate"),
        ({"rate": 0.01}, "data.rate"),
        ({"rate": 101}, "data.rate"),
        ({"rate": True}, "data.rate"),
        ({"rate": "5"}, "data.rate"),
        ({"near": [ONE]}, "data.far_rate"),
        ({"far_rate": 1}, "data.near"),
        ({"rate": 1, "near": [], "far_rate": 2}, "data.far_rate"),
        ({"near": ["ann"], "far_rate": 1}, "data.near.0"),
        ({"near": [ONE, 7], "far_rate": 1}, "data.near.1"),
        ({"near": [ONE] * 257, "far_rate": 1}, "data.near"),
        ({"near": {}, "far_rate": 1}, "data.near"),
        ({"near": 0, "far_rate": 1}, "data.near"),
        ({"near": -1, "far_rate": 1}, "data.near"),
        ({"near": True, "far_rate": 1}, "data.near"),
        ({"near": 1e10, "far_rate": 1}, "data.near"),
    ],
)
def test_an_error_names_the_field(data: object, field: str) -> None:
    with pytest.raises(MessageInvalid) as refused:
        parse_data(msgspec.Raw(msgspec.json.encode(data)), InterestInput)
    assert [one.field for one in refused.value.details] == [field]
