"""The table of statuses and close codes, and the mapper."""

from __future__ import annotations

import pytest
import trio
from werkzeug.exceptions import (
    BadGateway,
    BadRequest,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

import reileta.errors as errors
from api.errors import WrongMethod, answered, close_code_of, refusal_of, status_of
from reileta.errors import ReiletaError

# The table of errors in docs/protocol.md, row by row.
STATUSES = {
    1: 503, 2: 404, 3: 401, 4: 403, 5: 404, 6: 502, 7: 502, 8: 502, 9: 502, 10: 307, 11: 502,
    12: 403, 14: 400, 15: 409, 16: 500, 17: 404, 18: 403, 19: 403, 20: 404, 21: 400, 22: 400,
    23: 401, 24: 400, 25: 404, 26: 400, 27: 404, 28: 501, 29: 400, 30: 409, 31: 409, 32: 400,
    33: 400, 34: 400, 35: 404, 36: 404, 37: 409, 38: 400, 39: 403, 40: 400, 43: 404, 45: 409,
    46: 404, 47: 409, 48: 409, 49: 403, 50: 404, 100: 400, 101: 401, 102: 429, 103: 413, 104: 415,
    105: 400, 106: 404, 107: 409, 108: 400, 109: 404, 110: 403, 111: 404, 112: 400, 113: 409,
    114: 409, 115: 409, 116: 409, 117: 404, 118: 409, 119: 400, 120: 400, 121: 400, 122: 503,
    123: 403, 124: 400, 125: 408, 126: 400, 127: 416, 128: 503, 129: 403, 131: 401, 132: 503,
    133: 403, 134: 409, 135: 403, 136: 401, 137: 403, 140: 400, 141: 404,
}  # fmt: skip


# Of a code that another class gives its status to.
OTHERS = {WrongMethod, errors.HeadTooLarge}


def family(kind: type[ReiletaError]) -> list[type[ReiletaError]]:
    return [kind, *(one for below in kind.__subclasses__() for one in family(below))]


def test_every_error_has_the_status_of_its_code() -> None:
    # The branches have codes too, but nobody raises them: their first leaves stand for them.
    branches = {ReiletaError, *ReiletaError.__subclasses__()} - {errors.Redirected}
    raised = [error for error in family(ReiletaError) if error not in branches | OTHERS]
    told = {
        error.code: status_of(error) for error in raised if error.__module__ == "reileta.errors"
    }
    assert told == STATUSES


def test_a_class_that_is_not_in_the_table_has_its_ancestors_status() -> None:
    class Oddity(errors.InstanceFull):
        pass

    assert status_of(Oddity) == 409
    assert close_code_of(errors.DatabaseUnavailable) == 1013
    assert close_code_of(errors.CredentialInvalid) == 4000
    assert close_code_of(errors.NotLoggedIn) == 4001
    assert close_code_of(errors.InstanceFull) is None


def test_a_code_can_have_a_second_status() -> None:
    assert (errors.HeadTooLarge.code, status_of(errors.HeadTooLarge)) == (103, 431)
    assert (WrongMethod.code, status_of(WrongMethod)) == (2, 405)


def test_what_is_no_error_of_ours_has_no_status() -> None:
    with pytest.raises(TypeError):
        status_of(ValueError)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exception", "code", "status"),
    [
        (NotFound(), 2, 404),
        (MethodNotAllowed(["PUT", "GET"]), 2, 405),
        (MethodNotAllowed(), 2, 405),
        (RequestTimeout(), 125, 408),
        (RequestEntityTooLarge(), 103, 413),
        (UnsupportedMediaType(), 104, 415),
        (BadRequest(), 119, 400),
        (BadGateway(), 16, 500),
        (errors.InstanceFull(), 48, 409),
        (ZeroDivisionError(), 16, 500),
    ],
)
def test_every_exception_becomes_a_refusal(exception: Exception, code: int, status: int) -> None:
    refusal = refusal_of(exception, route="/x")
    assert (refusal.error.code, refusal.status) == (code, status)


def test_headers_go_with_some() -> None:
    def headers(exception: Exception) -> dict[str, str]:
        return dict(refusal_of(exception, route="/x").headers)

    assert headers(errors.TooManyRequests(0.01)) == {"Retry-After": "1"}
    assert headers(errors.DatabaseUnavailable(retry_after_s=1.5)) == {"Retry-After": "2"}
    assert headers(MethodNotAllowed(["PUT", "GET"])) == {"Allow": "GET, PUT"}
    assert headers(errors.NotLoggedIn()) == {"WWW-Authenticate": "Bearer"}
    assert headers(errors.CredentialMalformed()) == {}
    assert headers(errors.ServiceDisabled()) == {}


async def test_what_comes_out_of_work_is_an_answer_or_a_refusal() -> None:
    async def works() -> str:
        return "done"

    async def fails() -> str:
        raise ZeroDivisionError

    async def cancelled() -> str:
        await trio.sleep_forever()
        raise AssertionError

    assert await answered(works, repr) == "done"
    assert await answered(fails, repr) == "ZeroDivisionError()"
    with trio.CancelScope() as scope:
        scope.cancel()
        await answered(cancelled, repr)
    assert scope.cancelled_caught
