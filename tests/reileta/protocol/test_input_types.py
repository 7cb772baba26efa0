"""Input types: what they take, what they say of what they don't."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from reileta.errors import Detail, WorldInvalid
from reileta.protocol.input_types import (
    AssetVersion,
    Capacity,
    Description,
    DisplayName,
    Email,
    Flag,
    GivenPassword,
    HttpsUrl,
    Input,
    InstanceName,
    Limit,
    Offset,
    Password,
    Platform,
    Reference,
    ServiceId,
    TagList,
    Title,
    Username,
    check,
    is_clean,
    is_storable,
)


class Everything(Input):
    username: Username | None = None
    name: InstanceName | None = None
    service: ServiceId | None = None
    version: AssetVersion | None = None
    platform: Platform | None = None
    url: HttpsUrl | None = None
    password: Password | None = Field(default=None, repr=False)
    given_password: GivenPassword | None = None
    displayname: DisplayName | None = None
    title: Title | None = None
    description: Description | None = None
    email: Email | None = None
    capacity: Capacity | None = None
    limit: Limit | None = None
    offset: Offset | None = None
    flag: Flag | None = None
    ref: Reference | None = None
    tags: TagList | None = None


def faults(**given: object) -> dict[str, str]:
    try:
        check(Everything, given, WorldInvalid)
    except WorldInvalid as error:
        return {detail.field: detail.message for detail in error.details}
    return {}


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("username", "Ada_1", "Ada_1"),
        ("name", "a.b-c_9", "a.b-c_9"),
        ("service", "com.example.voice", "com.example.voice"),
        ("version", "1.2-rc_3", "1.2-rc_3"),
        ("platform", "windows-x64", "windows-x64"),
        (
            "url",
            "https://cdn.example.org:8443/a%20b?c=[1]#d",
            "https://cdn.example.org:8443/a%20b?c=[1]#d",
        ),
        ("url", "https://[::1]/", "https://[::1]/"),
        ("password", " 12345678 ", " 12345678 "),
        ("given_password", "x", "x"),
        ("displayname", "  Ada L. ", "Ada L."),
        ("displayname", "👩‍🚀", "👩‍🚀"),
        ("title", "Hafen bei Nacht - 港", "Hafen bei Nacht - 港"),
        ("description", " a\r\nb\tc ", "a\nb\tc"),
        ("description", "", ""),
        ("email", " ada@example.org ", "ada@example.org"),
        ("capacity", 1024, 1024),
        ("limit", "100", 100),
        ("limit", 1, 1),
        ("offset", "0", 0),
        ("flag", "true", True),
        ("flag", "0", False),
        ("flag", True, True),
        ("ref", "", ""),
        ("tags", ["a", "b"], ("a", "b")),
    ],
)
def test_what_is_taken(field: str, value: object, kept: object) -> None:
    assert getattr(check(Everything, {field: value}, WorldInvalid), field) == kept


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("username", "ab", "must be 3 to 32 letters, digits or _, and begin with a letter"),
        ("name", "No", "must be 3 to 32 characters of a-z 0-9 . _ -"),
        ("service", "voice", "must be 3 to 128 characters like com.example.voice, in lower case"),
        (
            "version",
            "1:2",
            "must be 1 to 32 characters of A-Z a-z 0-9 . _ -, and begin with a letter or digit",
        ),
        (
            "platform",
            "../x",
            "must be 1 to 32 characters of a-z 0-9 . _ -, and begin with a letter or digit",
        ),
        ("password", "1234567", "must be 8 to 256 characters"),
        ("password", "1234567\0", "must not contain NUL or lone surrogates"),
        ("given_password", "", "must be 1 to 256 characters"),
        ("displayname", " ", "must be 1 to 32 characters"),
        ("displayname", "a\nb", "must not contain control characters"),
        ("title", "a\u2028b", "must not contain control characters"),
        ("title", "a\u202eb", "must not contain control characters"),
        ("title", "\0", "must not contain control characters"),
        ("description", "a\x1bb", "must not contain control characters"),
        ("description", "x" * 4097, "must be at most 4096 characters"),
        ("email", "a@b", "must be an e-mail address"),
        ("email", "a b@example.org", "must be an e-mail address"),
        ("email", "a@example.org\n.b", "must be an e-mail address"),
        ("capacity", 0, "must be 1 to 1024"),
        ("capacity", 10**40, "must be 1 to 1024"),
        ("capacity", "5", "must be a whole number"),
        ("capacity", True, "must be a whole number"),
        ("capacity", 1.5, "must be a whole number"),
        ("limit", "ten", "must be a whole number"),
        ("limit", "101", "must be 1 to 100"),
        ("offset", "-1", "must be 0 to 2147483647"),
        ("flag", "yes", "must be true or false"),
        ("flag", 1, "must be true or false"),
        ("ref", "\ud800", "must not contain NUL or lone surrogates"),
        ("ref", "x" * 257, "must be at most 256 characters"),
        ("title", 5, "must be a string"),
        ("title", ["a"], "must be a string"),
        ("tags", "a", "must be an array of strings"),
        ("tags", ["a"] * 33, "must have at most 32 tags"),
    ],
)
def test_what_is_refused(field: str, value: object, message: str) -> None:
    assert faults(**{field: value}) == {field: message}


@pytest.mark.parametrize(
    "url",
    [
        "", "http://example.org/", "HTTPS://example.org/", "javascript:alert(1)", "//example.org/",
        "https://", "https:///path", "https://user@example.org/", "https://a:b@example.org/",
        "https://example.org/a b", "https://example.org/\n", "https://example.org\\@evil.example/",
        "https://exämple.org/", 'https://example.org/"><script>', "https://example.org:99999/",
        "https://example.org:0/", "https://[::1/", "https://example.org/" + "x" * 2048,
    ],
)  # fmt: skip
def test_no_other_url_is_taken(url: str) -> None:
    assert list(faults(url=url)) == ["url"]


def test_every_fault_is_named_at_once() -> None:
    assert set(faults(title=5, capacity="x", tags=[1, "a", None])) == {
        "title", "capacity", "tags.0", "tags.2",
    }  # fmt: skip


def test_a_missing_field_is_named() -> None:
    class Needy(Input):
        title: Title

    with pytest.raises(WorldInvalid) as refused:
        check(Needy, {}, WorldInvalid)
    assert refused.value.details == (Detail("title", "is required"),)


def test_what_is_no_object_is_refused() -> None:
    for nothing in ("x", 5, None, (1,)):
        with pytest.raises(WorldInvalid) as refused:
            check(Everything, nothing, WorldInvalid)
        assert refused.value.details == (Detail("body", "must be an object"),)


def test_null_and_left_out_differ() -> None:
    assert check(Everything, {"title": None, "other": 1}, WorldInvalid).given() == {"title": None}
    assert check(Everything, {}, WorldInvalid).given() == {}


def test_a_refusal_does_not_repeat_the_input() -> None:
    with pytest.raises(WorldInvalid) as refused:
        check(Everything, {"password": "hunter2"}, WorldInvalid)
    assert "hunter2" not in repr(refused.value) + str(refused.value)
    assert refused.value.__cause__ is None
    assert "12345678" not in repr(check(Everything, {"password": "12345678"}, WorldInvalid))


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(Everything.model_fields)), json_values))
def test_nothing_crashes_and_what_passes_can_be_stored(given_: dict[str, Any]) -> None:
    refused = {field.partition(".")[0] for field in faults(**given_)}
    assert refused <= set(given_)
    passing = {name: value for name, value in given_.items() if name not in refused}
    for name, value in check(Everything, passing, WorldInvalid).given().items():
        if isinstance(value, str):
            assert is_storable(value), name


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_letters_of_any_script_are_clean(text: str) -> None:
    assert is_clean(text)
