"""Validated types for input models, with their JSON schemas.

Nothing is coerced: `"5"` is not a number and `1` is not a boolean. Each error message completes a
sentence after the field's name: `capacity: must be 1 to 1024`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from reileta.errors import Detail, InvalidInput
from reileta.ids import (
    is_asset_version,
    is_instance_name,
    is_platform,
    is_service_id,
    is_username,
)
from reileta.names import name_fault
from reileta.opaque_string import prepared, refused_character
from reileta.protocol import patterns
from reileta.records import Cursor
from reileta.rules.console.listing import REACH
from reileta.rules.federation.addresses import TEXT_LENGTH, canonical, host_of
from reileta.unicode import is_unicode

MAX_CAPACITY: Final = 1024
MAX_PAGE: Final = 100
DEFAULT_PAGE: Final = 50
MAX_TAGS: Final = 32
NFC_SHRINKS: Final = 4
"""NFC makes one character of at most so many. Longer texts are not normalized, since that can take
quadratic time."""
MAX_TIME_MS: Final = 2**53 - 1
"""The last millisecond that every JSON parser reads exactly; it fits into a bigint."""

# Marks that change the text direction: with these, one name can look like another.
_BIDI: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_DIGITS: Final = re.compile(r"-?[0-9]{1,18}")
_URL: Final = re.compile(patterns.URL)
_EMAIL: Final = re.compile(patterns.EMAIL)


class Input(BaseModel):
    """Input from a client. Unknown fields are ignored, so that newer clients work with older
    servers."""

    model_config = ConfigDict(
        strict=True, extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    def given(self) -> dict[str, Any]:
        """The fields that were sent; a missing field differs from null."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}


class CreateInput(Input):
    """Input for a new object: null counts as left out, where a field may be left out.

    Some languages' JSON encoders write null for values that are not set.
    """

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {name: one for name, one in value.items() if one is not None or name in required}


I = TypeVar("I", bound=Input)  # noqa: E741 - the input of an operation


def fault(message: str, *, field: str = "") -> PydanticCustomError:
    """The error that a validator raises; a validator of a whole model names the wrong `field`."""
    return PydanticCustomError("reileta", "{message}", {"message": message, "field": field})


def is_clean(text: str, *, lines: bool = False) -> bool:
    """Whether all characters are allowed in a name or title; with `lines`, also tabs and newlines.

    Not allowed: control characters (PostgreSQL can't store NUL), lone surrogates (UTF-8 can't
    encode them), line separators, and marks that change the text direction.
    """
    if text.isprintable():  # nearly every text is
        return True
    for char in text:
        if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in _BIDI:
            if lines and char in "\n\t":
                continue
            return False
    return True


def is_storable(text: str) -> bool:
    """Whether the database can store the text: without NUL and lone surrogates."""
    return "\0" not in text and is_unicode(text)


def _text(low: int, high: int, *, lines: bool = False) -> Callable[[str], str]:
    size = f"must be {low} to {high} characters" if low else f"must be at most {high} characters"

    def check(value: str) -> str:
        if lines:
            value = value.replace("\r\n", "\n")
        value = value.strip() if is_storable(value) else value
        if not low <= len(value) <= high:
            raise fault(size)
        if not is_clean(value, lines=lines):
            raise fault("must not contain control characters")
        return value

    return check


def _name(high: int) -> Callable[[str], str]:
    """Checks a name or title, and returns it in NFC."""
    text = _text(1, high)

    def check(value: str) -> str:
        if len(value) <= high * NFC_SHRINKS:
            value = unicodedata.normalize("NFC", value)
        value = text(value)
        reason = name_fault(value)
        if reason is not None:
            raise fault(reason)
        return value

    return check


def _text_schema(
    low: int, high: int, description: str, *examples: str, pattern: str
) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "type": "string",
            "description": description,
            "minLength": low,
            "maxLength": high,
            "pattern": f"^{pattern}$",
            "examples": list(examples),
        }
    )


def checked(is_valid: Callable[[Any], bool], message: str) -> AfterValidator:
    """A validator that refuses values with the message."""

    def check(value: Any) -> Any:
        if not is_valid(value):
            raise fault(message)
        return value

    return AfterValidator(check)


def _https_url(value: str) -> str:
    # A URL must not contain characters that a browser would repair: the browser would use another
    # URL.
    if len(value) > 2048 or _URL.fullmatch(value) is None:
        raise fault("must be an https URL of at most 2048 ASCII characters")
    try:
        parts = urlsplit(value)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named:
        raise fault("must be an https URL with a host")
    if "@" in urlsplit(value).netloc:
        raise fault("must not contain a username or password")
    return value


def _password(value: str) -> str:
    if not is_storable(value):
        raise fault("must not contain NUL or lone surrogates")
    if len(value) <= 256 * NFC_SHRINKS:
        value = prepared(value)
    if not 8 <= len(value) <= 256:
        raise fault("must be 8 to 256 characters")
    refused = refused_character(value)
    if refused is not None:
        raise fault(
            f"must not contain U+{ord(refused):04X} there: control, invisible and unassigned "
            "characters are refused, and signs where RFC 8265 does not allow them"
        )
    return value


def _password_given(value: str) -> str:
    # Passwords that were stored before the profile applied are as long as they are.
    length = len(value)
    if 256 < length <= 256 * NFC_SHRINKS:
        length = len(prepared(value))
    if not 1 <= length <= 256 or not is_storable(value):
        raise fault("must be 1 to 256 characters")
    return value


def _email(value: str) -> str:
    value = value.strip() if is_storable(value) else value
    if len(value) > 254 or not is_clean(value) or _EMAIL.fullmatch(value) is None:
        raise fault("must be an e-mail address")
    return value


def _whole(low: int, high: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise fault(f"must be {low} to {high}")
        return value

    return check


def _whole_schema(low: int, high: int, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": low, "maximum": high, **more})


def _digits(value: object) -> object:
    """The number of a query string's digits; `int` alone would accept `1_0`, ` 5` and other
    scripts."""
    if isinstance(value, str):
        if _DIGITS.fullmatch(value) is None:
            raise fault("must be a whole number")
        return int(value)
    return value


def _integral(value: object) -> object:
    """Accepts 8.0 as the integer 8, like JSON Schema: some languages encode it so."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def cursor_text(cursor: Cursor) -> str:
    """A place in a list as clients get it, and send it back."""
    return "~".join(map(str, cursor))


def _cursor(*kinds: type[int] | type[str]) -> Callable[[object], object]:
    pattern = re.compile(_cursor_pattern(kinds))

    def parse(value: object) -> object:
        if value is None:
            return None
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise fault("must be `next` of an answer of the same list")
        return tuple(kind(part) for kind, part in zip(kinds, value.split("~"), strict=True))

    return parse


def _cursor_pattern(kinds: Sequence[type[int] | type[str]]) -> str:
    return "~".join(r"[0-9]{1,18}" if kind is int else r"[!-}]{1,320}" for kind in kinds)


def _cursor_schema(*kinds: type[int] | type[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{_cursor_pattern(kinds)}$"})


def _server(value: str) -> str:
    try:
        return canonical(value)
    except ValueError as error:
        raise fault(str(error)) from None


def _host_pattern(value: str) -> str:
    return host_of(_server(value))


def _flag(value: object) -> object:
    if isinstance(value, str):
        if value not in ("true", "false", "1", "0"):
            raise fault("must be true or false")
        return value in ("true", "1")
    return value


def _tags(value: object) -> object:
    """A list as a tuple: strict models don't convert JSON arrays."""
    if not isinstance(value, list | tuple):
        raise fault("must be an array of strings")
    if len(value) > MAX_TAGS:
        raise fault(f"must have at most {MAX_TAGS} tags")
    return tuple(value)


def _storable(value: str) -> str:
    if len(value) > 256:
        raise fault("must be at most 256 characters")
    if not is_storable(value):
        raise fault("must not contain NUL or lone surrogates")
    return value


Username = Annotated[
    str,
    checked(is_username, "must be 3 to 32 letters, digits or _, and begin with a letter"),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A unique name to log in with.",
            "pattern": "^[A-Za-z][A-Za-z0-9_]{2,31}$",
            "examples": ["ada"],
        }
    ),
]
InstanceName = Annotated[
    str,
    checked(is_instance_name, "must be 3 to 32 characters of a-z 0-9 . _ -"),
    WithJsonSchema(
        {"type": "string", "pattern": "^[a-z0-9._-]{3,32}$", "examples": ["sunday-meetup"]}
    ),
]
ServiceId = Annotated[
    str,
    checked(is_service_id, "must be 3 to 128 characters like com.example.voice, in lower case"),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 3,
            "maxLength": 128,
            "pattern": rf"^{patterns.LABEL}(\.{patterns.LABEL})+$",
            "examples": ["com.example.voice"],
        }
    ),
]
AssetVersion = Annotated[
    str,
    checked(
        is_asset_version,
        "must be 1 to 32 characters of A-Z a-z 0-9 . _ -, and begin with a letter or digit",
    ),
    WithJsonSchema(
        {
            "type": "string",
            "description": "The version of an asset.",
            "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$",
            "examples": ["1.2"],
        }
    ),
]
Platform = Annotated[
    str,
    checked(
        is_platform, "must be 1 to 32 characters of a-z 0-9 . _ -, and begin with a letter or digit"
    ),
    WithJsonSchema(
        {
            "type": "string",
            "description": "An engine or platform that an asset was built for.",
            "pattern": "^[a-z0-9][a-z0-9._-]{0,31}$",
            "examples": ["windows"],
        }
    ),
]
"""The name of an engine or a platform that an asset was built for."""
HttpsUrl = Annotated[
    str,
    AfterValidator(_https_url),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{patterns.DOCUMENTED_URL}$",
            "maxLength": 2048,
            "examples": ["https://cdn.example.org/harbour.bundle"],
        }
    ),
]
Password = Annotated[
    str,
    AfterValidator(_password),
    _text_schema(
        8, 256, "A new password.", "correct horse battery staple", pattern=patterns.PASSWORD
    ),
]
GivenPassword = Annotated[
    str,
    AfterValidator(_password_given),
    _text_schema(1, 256, "A password.", "correct horse battery staple", pattern=patterns.STORABLE),
]
"""A password for a login: an invalid one is a wrong login, not a wrong field."""
DisplayName = Annotated[
    str,
    AfterValidator(_name(32)),
    _text_schema(1, 32, "The name that others see.", "Ada L.", pattern=patterns.NAME),
]
Title = Annotated[
    str,
    AfterValidator(_name(128)),
    _text_schema(1, 128, "A name for people.", "Harbour at dusk", pattern=patterns.NAME),
]
Description = Annotated[
    str,
    AfterValidator(_text(0, 4096, lines=True)),
    _text_schema(
        0, 4096, "A text about it.", "A quiet harbour with boats to row.", pattern=patterns.TEXT
    ),
]
Reason = Annotated[
    str,
    AfterValidator(_text(1, 500, lines=True)),
    _text_schema(1, 500, "no spam, please", pattern=patterns.TEXT),
]
Email = Annotated[
    str,
    AfterValidator(_email),
    WithJsonSchema(
        {
            "type": "string",
            "description": "An e-mail address.",
            "maxLength": 254,
            "pattern": f"^{patterns.EMAIL}$",
            "examples": ["ada@example.org"],
        }
    ),
]
DataKey = Annotated[
    str,
    checked(lambda key: 1 <= len(key) <= 64 and is_clean(key), "must be 1 to 64 characters"),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 64}),
]
"""The key of a value that is retained."""
Capacity = Annotated[
    int,
    BeforeValidator(_integral),
    AfterValidator(_whole(1, MAX_CAPACITY)),
    _whole_schema(1, MAX_CAPACITY, description="Number of seats.", examples=[32]),
]
NodeCapacity = Annotated[
    int,
    BeforeValidator(_integral),
    AfterValidator(_whole(1, 100)),
    _whole_schema(1, 100, description="Instances that can live on the node.", examples=[100]),
]
Region = Annotated[
    str,
    checked(
        is_platform, "must be 1 to 32 characters of a-z 0-9 . _ -, and begin with a letter or digit"
    ),
    WithJsonSchema(
        {
            "type": "string",
            "description": "Where the node is, for people.",
            "pattern": "^[a-z0-9][a-z0-9._-]{0,31}$",
            "examples": ["eu-west"],
        }
    ),
]
TimeMs = Annotated[
    int,
    BeforeValidator(_integral),
    checked(lambda ms: 0 <= ms <= MAX_TIME_MS, "must be milliseconds since 1970"),
    _whole_schema(0, MAX_TIME_MS, examples=[1900000000000]),
]
"""A time, in milliseconds since 1970 UTC."""
Limit = Annotated[
    int,
    BeforeValidator(_digits),
    AfterValidator(_whole(1, MAX_PAGE)),
    _whole_schema(1, MAX_PAGE, description="Largest number of items.", default=DEFAULT_PAGE),
]
Offset = Annotated[
    int,
    BeforeValidator(_digits),
    AfterValidator(_whole(0, 2**31 - 1)),
    _whole_schema(0, 2**31 - 1, description="How many items to skip.", default=0),
]
ShortOffset = Annotated[
    int,
    BeforeValidator(_digits),
    AfterValidator(_whole(0, REACH - 100)),
    _whole_schema(0, REACH - 100, description="How many items to skip.", default=0),
]
"""For lists of what is live, of which only the first are sorted."""
NumberCursor = Annotated[Cursor, BeforeValidator(_cursor(int)), _cursor_schema(int)]
"""A place in a list that is sorted by a number; `cursor_text` writes it."""
TextCursor = Annotated[Cursor, BeforeValidator(_cursor(str)), _cursor_schema(str)]
"""A place in a list that is sorted by a text."""
TimeCursor = Annotated[Cursor, BeforeValidator(_cursor(int, str)), _cursor_schema(int, str)]
"""A place in a list that is sorted by time and id."""
FollowerCursor = Annotated[
    Cursor, BeforeValidator(_cursor(int, str, str)), _cursor_schema(int, str, str)
]
QueueCursor = Annotated[
    Cursor, BeforeValidator(_cursor(int, int, str)), _cursor_schema(int, int, str)
]
Flag = Annotated[bool, BeforeValidator(_flag)]
Reference = Annotated[
    str,
    AfterValidator(_storable),
    WithJsonSchema({"type": "string", "maxLength": 256, "pattern": f"^{patterns.STORABLE}$"}),
]
"""An id, a name or a search text: any text that the database can look up."""

ServerAddress = Annotated[
    str,
    AfterValidator(_server),
    WithJsonSchema(
        {
            "type": "string",
            "description": "The address of a server, `host` or `host:port`.",
            "maxLength": TEXT_LENGTH,
            "examples": ["b.example.org"],
        }
    ),
]
"""The address of a server, in its canonical spelling."""
HostPattern = Annotated[
    str,
    AfterValidator(_host_pattern),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A host. A port is ignored.",
            "maxLength": TEXT_LENGTH,
            "examples": ["evil.example"],
        }
    ),
]
"""The host of a server in its canonical spelling, without a port."""

TagList = Annotated[
    tuple[str, ...],
    BeforeValidator(_tags),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "maxItems": MAX_TAGS}),
]
"""Tags as they were sent; `reileta/rules/tags.py` checks them."""


def check(model: type[I], value: object, error: type[InvalidInput], *, within: str = "") -> I:
    """The model for a client's input.

    Raises `error` with a detail for every wrong field, named by its dotted path. `within` is the
    field of the message that holds the input, if any.
    """
    try:
        return model.model_validate(value)
    except ValidationError as invalid:
        # The input itself stays out: it can contain a password.
        faults = invalid.errors(include_url=False, include_input=False)
        raise error.fields(_detail(one, within) for one in faults) from None


_MESSAGES: Final = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_unicode": "must not contain NUL or lone surrogates",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": "must be an array",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def _detail(fault: ErrorDetails, within: str) -> Detail:
    path = [within, *map(str, fault["loc"])]
    if fault["type"] == "reileta":
        path.append(fault["ctx"]["field"])
        message = str(fault["ctx"]["message"])
    else:
        message = _MESSAGES.get(fault["type"], "is not valid")
    return Detail(".".join(filter(None, path)) or "body", message)
