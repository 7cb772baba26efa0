"""Answers of other servers are checked like any input."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reileta.errors import BadData, MalformedData
from reileta.protocol.views.instance import PlayerInsideView, QueueView
from reileta.protocol.views.registry import (
    AssetView,
    InstanceView,
    ListView,
    ServiceView,
    UserView,
    WorldView,
)
from reileta.protocol.views.server import ServerView
from reileta.rules.federation.remote_objects import REMOTE_VIEWS, Question, Source, read
from tests.reileta.rules.federation.remote_examples import (
    ASSET,
    INSTANCE,
    OWN,
    PEER,
    PLAYER,
    QUEUE,
    SERVER,
    SERVICE,
    THIRD,
    USER,
    UUID,
    WORLD,
    Json,
    changed,
    page,
)

SOURCE = Source(PEER, http="https://gate.example:8443/vr", ws="wss://ws.example/api/ws")
EXAMPLES: list[tuple[Any, Json]] = [
    (UserView, USER),
    (WorldView, WORLD),
    (AssetView, ASSET),
    (ServiceView, SERVICE),
    (InstanceView, INSTANCE),
    (ServerView, SERVER),
    (PlayerInsideView, PLAYER),
    (QueueView, QUEUE),
]
EXAMPLE_OF = dict(EXAMPLES)
LIST_OF: dict[Any, Any] = {
    UserView: ListView[UserView],
    WorldView: ListView[WorldView],
    AssetView: ListView[AssetView],
    ServiceView: ListView[ServiceView],
    InstanceView: ListView[InstanceView],
    PlayerInsideView: ListView[PlayerInsideView],
}
LISTS = [(view, value) for view, value in EXAMPLES if view in LIST_OF]


def shown(
    view: Any,
    value: object,
    *,
    ref: str | None = None,
    unknown: frozenset[str] = frozenset(),
    source: Source = SOURCE,
) -> Any:
    """The answer as this server passes it on."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    answer = read(raw, Question(view, ref, limit=50), source, OWN)
    assert unknown <= answer.ours
    return json.loads(msgspec.json.encode(answer.without(unknown)))


def fault(view: Any, value: object, ref: str | None = None) -> str:
    """The field that is wrong."""
    with pytest.raises(MalformedData) as malformed:
        shown(view, value, ref=ref)
    (detail,) = malformed.value.details
    return detail.field


def test_every_view_has_an_example() -> None:
    assert {view for view, _ in EXAMPLES} == REMOTE_VIEWS


@pytest.mark.parametrize(("view", "value"), EXAMPLES)
def test_a_right_answer_comes_through(view: Any, value: Json) -> None:
    expected = value
    if view is ServerView:
        gateways = {"http": SOURCE.http, "ws": SOURCE.ws}
        expected = {**value, "gateways": gateways}
    assert shown(view, value) == expected
    if view in LIST_OF:
        assert shown(LIST_OF[view], page(value, next="5~x")) == page(value, next="5~x")


@pytest.mark.parametrize(("view", "value"), EXAMPLES)
def test_unknown_fields_are_dropped(view: Any, value: Json) -> None:
    odd = {**value, "isFriend": True, "status": "online", "token": "sa_x", "surprise": [[[]]]}
    assert shown(view, odd) == shown(view, value)


_ODD: list[Any] = [[{}], {}, 5.5, True]


@pytest.mark.parametrize(("view", "value"), EXAMPLES)
def test_fields_of_another_type_are_refused(view: Any, value: Json) -> None:
    for name, right in value.items():
        for wrong in _ODD:
            if name != "server" and type(wrong) is not type(right):
                assert fault(view, changed(value, name, wrong)).startswith(name)


@pytest.mark.parametrize(("view", "value"), EXAMPLES)
def test_missing_fields_are_refused(view: Any, value: Json) -> None:
    optional = {"description", "thumbnail", "url", "hash", "size", "icon", "ready_at"}
    if view is InstanceView:
        optional.add("title")
    for name in value.keys() - optional:
        rest = {key: one for key, one in value.items() if key != name}
        with pytest.raises(MalformedData):
            shown(view, rest)


@pytest.mark.parametrize(
    ("view", "value", "path", "wrong"),
    [
        (UserView, USER, "id", f"w_{UUID}"),
        (UserView, USER, "id", f"u_{UUID}@{PEER}"),
        (UserView, USER, "username", "@admin"),
        (UserView, USER, "displayname", "x" * 33),
        (UserView, USER, "displayname", ""),
        (UserView, USER, "displayname", "admin\u202egnp.exe"),
        (UserView, USER, "displayname", "ad\u200bmin"),
        (UserView, USER, "displayname", "Ada\nadmin"),
        (UserView, USER, "description", "x" * 4097),
        (UserView, USER, "tags", ["avr:a"] * 33),
        (UserView, USER, "tags", ["<script>"]),
        (UserView, USER, "created_at", 2**60),
        (WorldView, WORLD, "id", f"u_{UUID}"),
        (WorldView, WORLD, "owner", f"u_{UUID}"),
        (WorldView, WORLD, "owner", f"w_{UUID}@{PEER}"),
        (WorldView, WORLD, "owner", f"u_{UUID}@"),
        (WorldView, WORLD, "owner", f"u_{UUID}@127.1"),
        (WorldView, WORLD, "owner", f"u_{UUID}@a b"),
        (WorldView, WORLD, "capacity", 1025),
        (WorldView, WORLD, "assets.0.id", f"w_{UUID}"),
        (WorldView, WORLD, "assets.0.version", "../.."),
        (WorldView, WORLD, "assets.0.engine", "A B"),
        (WorldView, WORLD, "assets.0.platform", ""),
        (WorldView, WORLD, "assets.0.hash", "zz"),
        (WorldView, WORLD, "assets.0.size", 2**60),
        (ServiceView, SERVICE, "id", "voice"),
        (ServiceView, SERVICE, "owner", f"u_{UUID}"),
        (InstanceView, INSTANCE, "id", f"w_{UUID}"),
        (InstanceView, INSTANCE, "name", "No Name"),
        (InstanceView, INSTANCE, "world", f"i_{UUID}@{PEER}"),
        (InstanceView, INSTANCE, "world", f"w_{UUID}:@{PEER}"),
        (InstanceView, INSTANCE, "master", f"u_{UUID}"),
        (InstanceView, INSTANCE, "connected", 2**60),
        (ServerView, SERVER, "id", "<b>"),
        (ServerView, SERVER, "version", "x" * 65),
        (ServerView, SERVER, "public_key", "short"),
        (ServerView, SERVER, "address", THIRD),
        (ServerView, SERVER, "address", OWN),
        (PlayerInsideView, PLAYER, "player", f"u_{UUID}"),
        (PlayerInsideView, PLAYER, "user", f"u_{UUID}"),
        (QueueView, QUEUE, "queued", 2**60),
    ],
)
def test_wrong_values_are_refused(view: Any, value: Json, path: str, wrong: object) -> None:
    assert fault(view, changed(value, path, wrong)) == path


@pytest.mark.parametrize("name", ["email", "following", "home", "suspension"])
@pytest.mark.parametrize("value", ["ada@example.org", None, [], {}])
def test_private_fields_of_a_user_refuse_the_answer(name: str, value: object) -> None:
    assert fault(UserView, {**USER, name: value}) == name
    assert fault(ListView[UserView], page(USER, {**USER, name: value})) == f"items.1.{name}"


@pytest.mark.parametrize(("view", "value"), [(WorldView, WORLD), (InstanceView, INSTANCE)])
def test_private_objects_refuse_the_answer(view: Any, value: Json) -> None:
    private = {**value, "tags": ["avr:private"]}
    assert fault(view, private) == "tags"
    assert fault(LIST_OF[view], page(value, private)) == "items.1.tags"


def test_the_entries_of_a_queue_are_private() -> None:
    entry = {"user": f"u_{UUID}@{PEER}", "state": "waiting", "since": 1}
    assert shown(QueueView, {**QUEUE, "entry": entry, "items": [entry], "total": 1}) == QUEUE


@pytest.mark.parametrize(
    ("view", "value", "right", "wrong"),
    [
        (UserView, USER, (f"u_{UUID}", "ada", "ADA"), ("bob", f"u_{UUID[:-1]}1")),
        (WorldView, WORLD, (f"w_{UUID}",), (f"w_{UUID[:-1]}1", "Harbour")),
        (InstanceView, INSTANCE, (f"i_{UUID}", "picnic"), ("tea", f"i_{UUID[:-1]}1")),
        (ServiceView, SERVICE, ("com.example.voice",), ("com.example.other",)),
        (AssetView, ASSET, (f"f_{UUID}",), (f"f_{UUID[:-1]}1", "1.2")),
    ],
)
def test_another_object_than_was_asked_for_is_refused(
    view: Any, value: Json, right: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    for ref in right:
        assert shown(view, value, ref=ref) == value
    for ref in wrong:
        assert fault(view, value, ref=ref) == "id"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"https://{PEER}/a.png", True),
        (f"https://{PEER.upper()}:443/a.png", True),
        ("https://gate.example:8443/vr/a.png", True),
        ("https://ws.example/a.png?x=1", True),
        (f"http://{PEER}/a.png", False),
        (f"https://{PEER}:8443/a.png", False),
        (f"https://a.{PEER}/a.png", False),
        (f"https://{PEER}.evil.example/a.png", False),
        (f"https://{PEER}@evil.example/a.png", False),
        (f"https://evil.example/{PEER}", False),
        (f"https://evil.example\\@{PEER}/", False),
        (f"//{PEER}/a.png", False),
        ("/a.png", False),
        ("javascript:alert(1)", False),
        ("data:image/png;base64,AA", False),
        (f"https://{PEER}/\n", False),
        (f"https://{PEER}/ü", False),
        (f"https://{PEER}/" + "a" * 3000, False),
        (f"https://{OWN}/a.png", False),
        ("", False),
    ],
)
def test_urls_of_others_are_dropped(text: str, kept: bool) -> None:
    for view, value, name in (
        (UserView, USER, "thumbnail"),
        (UserView, USER, "banner"),
        (WorldView, WORLD, "thumbnail"),
        (AssetView, ASSET, "url"),
        (ServiceView, SERVICE, "url"),
        (ServerView, SERVER, "icon"),
    ):
        got = shown(view, {**value, name: text})
        assert got.get(name) == (text if kept else None)
    got = shown(WorldView, changed(WORLD, "assets.0.url", text))
    assert ("url" in got["assets"][0]) is kept


def test_a_server_without_tls_has_urls_without_tls() -> None:
    source = Source(PEER, secure=False)
    for text, kept in (
        (f"http://{PEER}/a.png", True),
        (f"https://{PEER}/a.png", True),
        (f"http://{THIRD}/a.png", False),
        (f"ftp://{PEER}/a.png", False),
    ):
        got = shown(UserView, {**USER, "thumbnail": text}, source=source)
        assert got.get("thumbnail") == (text if kept else None)
    got = shown(ServerView, SERVER, source=source)
    assert (got["secure"], got["gateways"]["http"]) == (False, f"http://{PEER}")
    assert shown(InstanceView, INSTANCE, source=source)["secure"] is False


def test_this_server_says_of_which_server_an_object_is() -> None:
    for view, value in EXAMPLES:
        if "server" in value:
            assert shown(view, {**value, "server": OWN})["server"] == PEER
    for address, joined in (
        (OWN, PEER),
        ("evil.example", PEER),
        ("no address", PEER),
        ("GATE.example:8443", "gate.example:8443"),
    ):
        got = shown(InstanceView, {**INSTANCE, "address": address, "secure": False})
        assert (got["address"], got["secure"]) == (joined, True)


def test_references_get_the_canonical_address() -> None:
    odd = {**WORLD, "owner": f"u_{UUID}@PEER.example.:443"}
    assert shown(WorldView, odd)["owner"] == f"u_{UUID}@{PEER}"


@pytest.mark.parametrize("spelling", [OWN, "OWN.example:3032", "own.example.:3032"])
def test_objects_of_this_server_must_exist(spelling: str) -> None:
    known = f"u_{UUID}@{OWN}"
    mine = {**WORLD, "owner": f"u_{UUID}@{spelling}"}
    assert shown(WorldView, mine)["owner"] == known
    for view, value, ours in (
        (WorldView, mine, f"u_{UUID}"),
        (ServiceView, {**SERVICE, "owner": f"u_{UUID}@{spelling}"}, f"u_{UUID}"),
        (InstanceView, {**INSTANCE, "owner": f"u_{UUID}@{spelling}"}, f"u_{UUID}"),
        (InstanceView, {**INSTANCE, "master": f"u_{UUID}@{spelling}"}, f"u_{UUID}"),
        (InstanceView, {**INSTANCE, "world": f"w_{UUID}:1@{spelling}"}, f"w_{UUID}"),
        (PlayerInsideView, {**PLAYER, "user": f"u_{UUID}@{spelling}"}, f"u_{UUID}"),
    ):
        with pytest.raises(MalformedData):
            shown(view, value, unknown=frozenset({ours}))
        listed = page(EXAMPLE_OF[view], value)
        got = shown(LIST_OF[view], listed, unknown=frozenset({ours}))
        assert got == {**listed, "items": [EXAMPLE_OF[view]]}


@pytest.mark.parametrize(
    ("view", "value", "name"),
    [(UserView, USER, "displayname"), (WorldView, WORLD, "title"), (ServiceView, SERVICE, "title"),
     (InstanceView, INSTANCE, "title"), (PlayerInsideView, PLAYER, "displayname")],
)  # fmt: skip
def test_names_that_nobody_can_read_are_left_out_of_lists(
    view: Any, value: Json, name: str
) -> None:
    odd = {**value, name: "ad\u200bmin"}
    assert shown(LIST_OF[view], page(odd, value))["items"] == [value]
    assert fault(view, odd) == name


@pytest.mark.parametrize(("view", "value"), LISTS)
def test_lists_are_bounded(view: Any, value: Json) -> None:
    list_of = LIST_OF[view]
    assert fault(list_of, page(*[value] * 51)) == "items"
    assert fault(list_of, page(value, total=2**60)) == "total"
    assert fault(list_of, page(value, total=-1)) == "total"
    assert fault(list_of, page(value, next="x" * 1025)) == "next"
    assert fault(list_of, page(value, next="a b")) == "next"
    assert fault(list_of, {"total": 1}) == "items"
    got = shown(list_of, page(value, limit=7, offset=9, next="i~1"))
    assert (got["limit"], got["offset"], got["next"]) == (50, 0, "i~1")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"nope", b"{", b"\xff", b'{"id": "\\ud800"}', b"[" * 100_000, b'{"a":' * 100_000,
        b'{"surprise": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", b"NaN", b"1e400",
        json.dumps(page(*[{}] * 100_000)).encode(), json.dumps([USER] * 1000).encode(),
    ],
)  # fmt: skip
def test_what_is_not_an_answer_at_all_is_refused(raw: bytes) -> None:
    for view, _ in EXAMPLES:
        with pytest.raises((BadData, MalformedData)):
            shown(view, raw)
    with pytest.raises((BadData, MalformedData)):
        shown(ListView[UserView], raw)


def test_details_do_not_repeat_the_answer() -> None:
    for value in ({**PLAYER, "role": "<script>"}, {**PLAYER, "<script>": 1, "role": 5}):
        with pytest.raises(MalformedData) as malformed:
            shown(PlayerInsideView, value)
        assert "script" not in str(malformed.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(EXAMPLES), st.data())
def test_whatever_a_server_answers_is_refused_or_valid(
    example: tuple[Any, Json], data: st.DataObject
) -> None:
    view, value = example
    name = data.draw(st.sampled_from(sorted(value)))
    new = data.draw(JSON | st.sampled_from([*value.values()]))
    try:
        got = shown(view, {**value, name: new})
    except (MalformedData, BadData):
        return
    assert got.get("server", PEER) == PEER
    assert shown(view, got, source=SOURCE) == got
