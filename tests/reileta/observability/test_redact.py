from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from reileta.ids import new_id
from reileta.observability import redact
from reileta.security.credentials import KINDS, new_token


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "around", ["{}", "Bearer {}", "/api/ws?authuser={}&x=1", "b'{}'", "x={},y", "({})", "a-{}"]
)
def test_tokens_are_masked_wherever_they_stand(kind: str, around: str) -> None:
    token = new_token(kind)  # type: ignore[arg-type]
    masked = redact.text(around.format(token))
    assert token[3:] not in masked
    assert redact.MASK in masked


@given(before=st.text(max_size=20), after=st.text(max_size=20))
def test_a_token_never_survives_whatever_is_around_it(before: str, after: str) -> None:
    secret = "kJ8sd7Fh2-_Qw1" * 3
    # A letter or digit right before the prefix makes it part of another word.
    text = f"{before} ua_{secret}{after}"
    assert secret not in redact.text(text)


@pytest.mark.parametrize(
    ("said", "masked"),
    [
        ("mail ann@example.org now", "mail *** now"),
        ("email:ann.b+c@mail.example.org", "email:***"),
        ("Key (lower(email))=(ann@example.org) exists", "Key (lower(email))=(***) exists"),
        ("Failing row contains (u_1, ann, $argon2id$).", "Failing row contains (***)."),
        ("postgresql://reileta:hunter2@db.example/x", "postgresql://reileta:***@db.example/x"),
        ("postgresql://reileta@db.example/x", "postgresql://reileta@db.example/x"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("POST /x?password=hunter2&y=1", "POST /x?password=***&y=1"),
        ("password: must be 8 to 256 characters", "password: must be 8 to 256 characters"),
        ("nothing to see", "nothing to see"),
    ],
)
def test_what_reads_like_a_secret_is_masked_and_the_rest_stays(said: str, masked: str) -> None:
    assert redact.text(said) == masked


@pytest.mark.parametrize("kind", ["u", "w", "i"])
def test_identifiers_with_a_server_are_no_e_mail_addresses(kind: str) -> None:
    text = f"join {new_id(kind)}@worlds.example.org:3032"  # type: ignore[arg-type]
    assert redact.text(text) == text


def test_what_pydantic_quotes_of_its_input_is_masked() -> None:
    class Login(BaseModel):
        word: int

    with pytest.raises(ValidationError) as caught:
        Login.model_validate({"word": "correct horse, battery"})
    said = redact.text(str(caught.value))
    assert "horse" not in said
    assert "word" in said


@pytest.mark.parametrize(
    "key",
    ["token", "access_token", "accessToken", "Set-Cookie", "password", "AUTHORIZATION", "e.email"],
)
def test_keys_that_hold_secrets_are_known_in_any_casing(key: str) -> None:
    assert redact.secret_key(key)


@pytest.mark.parametrize("key", ["trace", "tokenless", "instance", "user", "passage", ""])
def test_other_keys_are_left_alone(key: str) -> None:
    assert not redact.secret_key(key)


def test_values_are_masked_at_any_depth_and_keep_their_shape() -> None:
    token = new_token("ua")
    masked = redact.value(
        {
            "user": "u_1",
            "count": 3,
            "share": 0.5,
            "ready": True,
            "nothing": None,
            "token": None,
            "list": [{"password": ["a", "b"]}, (token, token.encode())],
            token: 1,
        }
    )
    assert masked == {
        "user": "u_1",
        "count": 3,
        "share": 0.5,
        "ready": True,
        "nothing": None,
        "token": None,
        "list": [{"password": "***"}, ["ua_***", "b'ua_***'"]],
        "ua_***": 1,
    }


def test_what_is_nested_without_end_is_masked_as_text() -> None:
    endless: list[object] = [new_token("ua")]
    endless.append(endless)
    assert endless[0] is not None
    assert str(endless[0])[3:] not in str(redact.value(endless))
