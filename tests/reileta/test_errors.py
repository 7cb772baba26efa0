"""The tree of errors, and the numbers that clients know."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reileta import errors
from reileta.errors import Detail, InstanceInvalid, Overloaded, ReiletaError, TooManyRequests

TABLE = """
1 Service disabled|2 Request not found|3 User not logged|4 User don't have permission
5 Server not found|6 No response from server|9 Bad redirection from server
10 Retry with new gateway|12 User cannot update|14 User invalid input|15 User already connected
16 Internal error|17 User not found|18 User cannot fetch|19 User cannot be deleted
20 Session not found|21 Session invalid input|22 Auth invalid input|23 Auth invalid login
24 World invalid input|25 World not found|26 World asset invalid input|27 World asset not found
28 Not implemented|29 Server invalid input|30 World already exists|31 Asset file already uploaded
32 World asset invalid file|33 Instance invalid input|34 Integrity invalid input
35 Integrity not found|36 Instance not found|37 Already following|38 Tag not found
39 Not in instance|40 Invalid moderation type|43 User has no home|45 Asset already exists
46 File not uploaded|47 Instance already exists|48 Instance is full|49 User not allowed
50 Player not found
"""


def tree(root: type[ReiletaError] = ReiletaError) -> Iterator[type[ReiletaError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


@pytest.mark.parametrize(
    "row", [row for line in TABLE.split("\n") for row in line.split("|") if row]
)
def test_the_numbers_and_messages_that_clients_know(row: str) -> None:
    code, message = row.split(" ", 1)
    assert (int(code), message) in {(error.code, error.message) for error in tree()}


@pytest.mark.parametrize("code", [7, 8, 11, *range(100, 125)])
def test_every_other_number_of_the_protocol_has_an_error(code: int) -> None:
    assert code in {error.code for error in tree()}


def test_the_docstring_draws_every_error_of_the_module() -> None:
    text = errors.__doc__ or ""
    here = {error.__name__ for error in tree() if error.__module__ == errors.__name__}
    drawn = {name for name in here if name in text or f"{name}," in text}
    leaves = {name for name in here if not getattr(errors, name).__subclasses__()}
    assert leaves <= drawn


def test_details_name_the_fields() -> None:
    error = InstanceInvalid.fields([Detail("capacity", "must be 1 to 1024"), Detail("tags", "no")])
    assert error.details == (Detail("capacity", "must be 1 to 1024"), Detail("tags", "no"))
    assert str(error) == "Instance invalid input (capacity: must be 1 to 1024; tags: no)"
    assert str(InstanceInvalid()) == "Instance invalid input"
    assert type(InstanceInvalid.field("a", "b")) is InstanceInvalid


def test_what_passes_says_when_to_try_again() -> None:
    assert TooManyRequests(2.5).retry_after_s == 2.5
    assert Overloaded().retry_after_s == 1.0
    assert errors.DatabaseUnavailable().code == 122
