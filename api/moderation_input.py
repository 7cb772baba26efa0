"""The input that moderates somebody, shared by HTTP and the WebSocket."""

from __future__ import annotations

from typing import get_args

from pydantic import ConfigDict, Field, model_validator

from actors.instance_service import ModerationRequest
from reileta.errors import ModerationInvalid, PlayerNotFound
from reileta.ids import all_of, is_id
from reileta.protocol.input_types import Input, Reference, TimeMs, fault
from reileta.rules.federation.addresses import canonical, host_of
from reileta.rules.instance.sanctions import ModerationAction


class ModerateInput(Input):
    """A moderation of one target: give one of `player`, `user` and `server`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user": "ada", "type": "mute", "reason": "no singing", "until": 1900000000000}
            ]
        }
    )

    player: Reference | None = Field(
        default=None,
        description="A player inside.",
        examples=["p_9c4b7e55-3d2a-4b1f-8a6e-5f4d3c2b1a09"],
    )
    user: Reference | None = Field(
        default=None, description="A user, inside or not, by id, `id@server` or username."
    )
    server: Reference | None = Field(
        default=None,
        description="Another server, to ban or unban all its users. Its port does not count, and"
        " hosts below it are included.",
        examples=["rude.example"],
    )
    type: Reference = Field(
        examples=["mute"], json_schema_extra={"enum": [*get_args(ModerationAction)]}
    )
    reason: str | None = Field(
        default=None, description="Up to 500 characters; the target reads it."
    )
    until: TimeMs | None = Field(
        default=None, description="When a ban or mute ends, in ms; without it, never."
    )

    @model_validator(mode="after")
    def _names_one_target(self) -> ModerateInput:
        if sum(one is not None for one in (self.player, self.user, self.server)) != 1:
            raise fault("give one of `player`, `user` and `server`", field="user")
        return self

    def request(self) -> ModerationRequest:
        """The request to the instance.

        Raises PlayerNotFound if `player` is not a player's id, and ModerationInvalid if `server` is
        not the address of a server.
        """
        if self.player is not None and not is_id(self.player, "p"):
            raise PlayerNotFound
        target = self.player or self.user or ""
        if self.server is not None:
            try:
                target = all_of(host_of(canonical(self.server)))
            except ValueError as error:
                raise ModerationInvalid.field("server", str(error)) from None
        return ModerationRequest(target, self.type, self.reason, self.until)
