"""`/api/instances/:id/moderate` and its like; what they do is tested with a whole server."""

from __future__ import annotations

import pytest

from actors.instance_service import ModerationRequest
from api.http.registry.moderation import ModerateInput, measure_of
from reileta.errors import ModerationInvalid, PlayerNotFound

PLAYER = "p_9c4b7e55-3d2a-4b1f-8a6e-5f4d3c2b1a09"


def test_the_example_of_a_measure_is_one() -> None:
    example = ModerateInput.model_json_schema()["examples"][0]
    measure = measure_of(ModerateInput.model_validate(example))
    assert measure == ModerationRequest("ada", "mute", "no singing", 1900000000000)


def test_a_measure_names_one_target() -> None:
    assert measure_of(ModerateInput(player=PLAYER, type="kick")) == ModerationRequest(
        PLAYER, "kick"
    )
    given = ModerateInput(user="ada", type="ban", reason="spam", until=5)
    assert measure_of(given) == ModerationRequest("ada", "ban", "spam", 5)
    for wrong in (
        ModerateInput(type="kick"),
        ModerateInput(player=PLAYER, user="ada", type="kick"),
        ModerateInput(user="ada", type="ban", until=-1),
        ModerateInput(user="ada", type="ban", until=2**53),
    ):
        with pytest.raises(ModerationInvalid):
            measure_of(wrong)
    with pytest.raises(PlayerNotFound):
        measure_of(ModerateInput(player="ada", type="kick"))
