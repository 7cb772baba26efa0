"""Identifiers and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reileta.ids import (
    At,
    Kind,
    at,
    is_asset_version,
    is_id,
    is_instance_name,
    is_platform,
    is_service_id,
    is_user_at,
    is_user_ref,
    is_username,
    new_id,
    user_ref,
)
from reileta.rules.federation.addresses import is_address

UUID = "7f8c2c61-0d2b-4c8e-9e1f-3a7d5f0b9c11"
KINDS: tuple[Kind, ...] = ("u", "w", "i", "s", "p", "f")


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_id_is_of_its_kind_and_of_no_other(kind: Kind) -> None:
    made = new_id(kind)
    assert [other for other in KINDS if is_id(made, other)] == [kind]
    assert made != new_id(kind)


@pytest.mark.parametrize(
    "text",
    ["", "u_", f"u-{UUID}", f"u_{UUID.upper()}", f"u_{UUID}\n", f" u_{UUID}", f"u_{UUID}@here"],
)
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text, "u")


@pytest.mark.parametrize("text", ["ada", "Ada_99", "a" * 32])
def test_usernames(text: str) -> None:
    assert is_username(text)


@pytest.mark.parametrize(
    "text", ["", "ab", "9ada", "_ada", "a" * 33, "ada lovelace", "ad\n", "adä"]
)
def test_what_is_no_username(text: str) -> None:
    assert not is_username(text)


@pytest.mark.parametrize("text", ["abc", "sunday.meet-up_1", "9" * 32])
def test_instance_names(text: str) -> None:
    assert is_instance_name(text)


@pytest.mark.parametrize("text", ["", "ab", "A-hall", "a b c", "a" * 33, "abc\n", "@me"])
def test_what_is_no_instance_name(text: str) -> None:
    assert not is_instance_name(text)


@pytest.mark.parametrize(
    ("text", "id_", "server"),
    [
        ("ada", "ada", None),
        ("@me", "@me", None),
        ("@me@play.example.org", "@me", "play.example.org"),
        (f"u_{UUID}@host:1", f"u_{UUID}", "host:1"),
        ("ada@", "ada", ""),
        ("", "", None),
    ],
)
def test_an_at_is_taken_apart(text: str, id_: str, server: str | None) -> None:
    assert At.parse(text) == At(id_, server)


def test_local_is_what_names_no_server_or_this_one() -> None:
    assert At.parse("ada").local_to("here:1")
    assert At.parse("ada@here:1").local_to("here:1")
    assert not At.parse("ada@there").local_to("here:1")
    assert not At.parse("ada@").local_to("here:1")


@pytest.mark.parametrize(
    "server", ["PLAY.Example.org", "play.example.org.", "play.example.org:443"]
)
def test_each_spelling_of_a_server_names_the_same_objects(server: str) -> None:
    assert At.parse(f"u_{UUID}@{server}") == At(f"u_{UUID}", "play.example.org")
    assert At.parse(f"u_{UUID}@{server}").local_to("play.example.org")
    assert user_ref(f"u_{UUID}@{server}", "play.example.org") == f"u_{UUID}"
    assert user_ref(f"u_{UUID}@{server}", "here:1") == f"u_{UUID}@play.example.org"
    assert not is_user_at(f"u_{UUID}@{server}")


def test_at_names_the_server_once() -> None:
    assert at("u_1", "here:1") == "u_1@here:1"
    assert at("u_1@there", "here:1") == "u_1@there"
    assert at("@me", "here:1") == "@me@here:1"


@given(st.text(max_size=40))
def test_taking_apart_loses_nothing_but_spellings(text: str) -> None:
    parsed = At.parse(text)
    assert At.parse(str(parsed)) == parsed
    if parsed.server is None or not is_address(parsed.server):
        assert str(parsed) == text


def test_a_user_at_names_its_server() -> None:
    assert is_user_at(f"u_{UUID}@play.example.org")
    assert not is_user_at(f"u_{UUID}")
    assert not is_user_at(f"w_{UUID}@play.example.org")
    assert not is_user_at(f"u_{UUID}@Not A Server")


@pytest.mark.parametrize(
    "text", ["a.b", "com.example.voice", "org.x-y.z9", "c." + "a" * 63 + "." + "b" * 62]
)
def test_service_ids_are_reverse_dns(text: str) -> None:
    assert is_service_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "ab", "voice", "Com.example", ".com", "com.", "com..x", "com.-x", "com.x-", "com.x_y",
        "com.x/y", "com.x@y", "com.x\n", "com.é", "com." + "a" * 64, "c." + "a." * 63 + "a",
    ],
)  # fmt: skip
def test_nothing_else_is_a_service_id(text: str) -> None:
    assert not is_service_id(text)


@pytest.mark.parametrize("text", ["1", "1.2", "2024-01-01", "v1.0_rc", "x" * 32])
def test_versions_are_taken_that_a_reference_can_hold(text: str) -> None:
    assert is_asset_version(text)


@pytest.mark.parametrize("text", ["", ".1", "-1", "1:2", "1@2", "1/2", "1 2", "1\n", "x" * 33])
def test_nothing_else_is_a_version(text: str) -> None:
    assert not is_asset_version(text)


def test_platforms_are_short_and_in_lower_case() -> None:
    assert is_platform("unity")
    assert is_platform("windows-x64")
    for text in ("", "Unity", "../x", "-x", "a/b", "x" * 33, "x\n"):
        assert not is_platform(text)


def test_a_user_ref_is_a_bare_id_or_one_with_its_server() -> None:
    assert is_user_ref(f"u_{UUID}")
    assert is_user_ref(f"u_{UUID}@other.example:3032")
    for text in ("", "ada", "@me", f"w_{UUID}", f"u_{UUID}@", f"u_{UUID}@Other", "u_1@x.example"):
        assert not is_user_ref(text)
