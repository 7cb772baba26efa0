from __future__ import annotations

import pytest

from actors.runtime.errors import ActorCrashed, ActorStopped, MailboxFull, NoReply
from reileta.errors import Overloaded, ReiletaError


@pytest.mark.parametrize(
    ("error", "code"), [(MailboxFull, 122), (ActorStopped, 122), (ActorCrashed, 16)]
)
def test_what_askers_see_is_an_answer_with_a_code(error: type[Overloaded], code: int) -> None:
    assert issubclass(error, ReiletaError)
    assert error.code == code
    assert error().retry_after_s == 1.0


def test_whoever_catches_stopped_catches_crashed() -> None:
    assert issubclass(ActorCrashed, ActorStopped)
    assert not issubclass(MailboxFull, ActorStopped)


def test_a_missing_answer_is_a_bug_and_no_answer() -> None:
    assert not issubclass(NoReply, ReiletaError)
