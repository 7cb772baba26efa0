"""Checks of the objects that other servers answer with.

Another server's answer is input, like a client's. It is decoded into the views that this server
answers with itself, so fields that these don't have are dropped. Then every value is checked:

- Ids have the kind of their object, and are those that were asked for.
- References (`UserIDAt`, `WorldIDAt`) name their server. If they name this server, the object must
  exist here: `Answer.ours` lists these for the caller to check.
- URLs point to the other server or to one of its gateways. Others are dropped: they could be
  trackers, or not be URLs at all.
- Texts, numbers and lists have the bounds that this server's own have.
- Nothing that only its owner may see is accepted.

`server` and what follows from it are then set by this server. An answer that breaks a rule is
refused as a whole, with one exception: an object in a list whose name nobody could read, or that
names an unknown object of this server, is left out, because its server may have made it by other
rules, and may not know yet that the object is gone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec
from msgspec import UNSET, Struct, UnsetType
from pydantic import TypeAdapter, ValidationError

from reileta.errors import BadData, Detail, MalformedData
from reileta.ids import (
    At,
    is_asset_version,
    is_id,
    is_instance_name,
    is_platform,
    is_service_id,
    is_username,
)
from reileta.protocol import input_types
from reileta.protocol.input_types import MAX_TIME_MS, NFC_SHRINKS
from reileta.protocol.views.instance import PlayerInsideView, QueueView
from reileta.protocol.views.registry import (
    AssetView,
    InstanceView,
    ListView,
    ServiceView,
    UserView,
    WorldView,
)
from reileta.protocol.views.server import Gateways, ServerView
from reileta.rules.federation.addresses import canonical
from reileta.rules.visibility import is_private

T = TypeVar("T")

TAGS_LIMIT: Final = 32
ASSETS_LIMIT: Final = 1_000
"""Assets of one world; the other server's own limit can be higher than this server's."""
NAME_LIMIT: Final = 128
DISPLAY_NAME_LIMIT: Final = 32
DESCRIPTION_LIMIT: Final = 4_096
CURSOR_LIMIT: Final = 1_024

_TAG: Final = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,63}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
"""A server's id or version."""
CURSOR: Final = re.compile(rf"[!-~]{{1,{CURSOR_LIMIT}}}")
"""A place in another server's list, in whatever form."""

# Texts of msgspec's errors.
_PATH: Final = re.compile(r" - at `\$([\w.\[\]]*)`\Z")
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")

_display_name: Final = TypeAdapter[str](input_types.DisplayName)
_title: Final = TypeAdapter[str](input_types.Title)
_description: Final = TypeAdapter[str](input_types.Description)
_url: Final = TypeAdapter[str](input_types.HttpsUrl)


class ForeignUser(UserView, kw_only=True):
    """A user with the fields that only it may see; an answer that has one is refused."""

    email: Any = UNSET
    following: Any = UNSET
    home: Any = UNSET
    suspension: Any = UNSET


_DECODED: Final[Mapping[Any, Any]] = {
    UserView: ForeignUser,
    ListView[UserView]: ListView[ForeignUser],
}
"""The types that answers are decoded into, if they are not the views themselves."""
_PRIVATE: Final = ("email", "following", "home", "suspension")


@dataclass(frozen=True, slots=True)
class Source:
    """The server that answered.

    Attributes:
        address: its canonical `ServerAt`.
        secure: whether it is reached over TLS.
        http: the URL of its HTTP gateway; None: at its address.
        ws: the URL of its WebSocket gateway; None: at its address.
    """

    address: str
    secure: bool = True
    http: str | None = None
    ws: str | None = None

    @property
    def gateways(self) -> Gateways:
        """The URLs of its gateways."""
        tail = "s" if self.secure else ""
        return Gateways(
            http=self.http or f"http{tail}://{self.address}",
            ws=self.ws or f"ws{tail}://{self.address}/api/ws",
        )

    @property
    def hosts(self) -> frozenset[str]:
        """The addresses that its URLs may have."""
        urls = (url for url in (self.http, self.ws) if url is not None)
        named = (host_of_url(url, self.secure) for url in urls)
        return frozenset({self.address, *(host for host in named if host is not None)})


@dataclass(frozen=True, slots=True)
class Question:
    """The request that was answered.

    Attributes:
        view: the type of the answer's `data`.
        ref: the id or name in its path; None for a list, or if any object answers it.
        limit: for a list, the most items that were asked for.
        offset: for a list, as it was asked for.
    """

    view: Any
    ref: str | None = None
    limit: int = 0
    offset: int = 0


class _Wrong(Exception):
    """A value that no server of this kind sends. `field` grows on the way up."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message

    def within(self, name: str) -> _Wrong:
        """The same, for a value inside of a field."""
        return type(self)(f"{name}.{self.field}" if self.field else name, self.message)


class _Unreadable(_Wrong):
    """A value that a server with other rules for names may send."""


@dataclass(slots=True)
class Answer:
    """An answer that keeps all rules but one: `ours` must exist.

    Attributes:
        ours: the ids of this server's objects that it names.
        left_out: how many objects of a list were left out.
    """

    _data: Struct
    _refs: list[frozenset[str]] = field(default_factory=list)
    left_out: int = 0

    @property
    def ours(self) -> frozenset[str]:
        return frozenset[str]().union(*self._refs)

    def without(self, unknown: Set[str]) -> Struct:
        """The view, if `unknown` of `ours` don't exist here. Raises MalformedData if the answer is
        one object that names one of these."""
        data = self._data
        if not unknown:
            return data
        if not isinstance(data, ListView):
            raise MalformedData.field("data", "names an object of this server that does not exist")
        kept = [not refs & unknown for refs in self._refs]
        self.left_out += kept.count(False)
        items = tuple(item for item, keep in zip(data.items, kept, strict=True) if keep)
        return msgspec.structs.replace(data, items=items)


@dataclass(slots=True)
class _Reader:
    """Checks the objects of one server. `ours` collects references to this server's objects."""

    source: Source
    own: str
    hosts: frozenset[str]
    ours: set[str] = field(default_factory=set)

    # Values ---------------------------------------------------------------------------------------

    def user(self, name: str, text: str) -> str:
        return self._at(name, text, "u", lambda id_: is_id(id_, "u"))

    def world(self, name: str, text: str) -> str:
        def valid(text: str) -> bool:
            id_, colon, version = text.partition(":")
            return is_id(id_, "w") and (not colon or is_asset_version(version))

        return self._at(name, text, "w", valid)

    def _at(self, name: str, text: str, kind: str, valid: Callable[[str], bool]) -> str:
        """The reference, with its server in the canonical form."""
        named = At.parse(text)
        if not valid(named.id) or named.server is None:
            raise _Wrong(name, f"must be {kind}_…@server")
        try:
            server = canonical(named.server)
        except ValueError as fault:
            raise _Wrong(name, f"must be {kind}_…@server: the server {fault}") from None
        if server == self.own:
            self.ours.add(named.id.partition(":")[0])
        return f"{named.id}@{server}"

    def url(self, text: str | UnsetType) -> str | UnsetType:
        """The URL, if it is of the server; else it is left out."""
        if isinstance(text, UnsetType):
            return UNSET
        return text if host_of_url(text, self.source.secure) in self.hosts else UNSET

    # Objects --------------------------------------------------------------------------------------

    def read_user(self, view: ForeignUser) -> None:
        for name in _PRIVATE:
            if getattr(view, name) is not UNSET:
                raise _Wrong(name, "is private")
        _ensure("id", is_id(view.id, "u"), "must be u_…")
        _ensure("username", is_username(view.username), "must be a username")
        view.displayname = _text("displayname", view.displayname, _display_name, DISPLAY_NAME_LIMIT)
        view.description = _description_of(view.description)
        view.thumbnail, view.banner = self.url(view.thumbnail), self.url(view.banner)
        self._common(view)

    def read_world(self, view: WorldView) -> None:
        _ensure("id", is_id(view.id, "w"), "must be w_…")
        view.title = _text("title", view.title, _title, NAME_LIMIT)
        view.description = _description_of(view.description)
        view.owner = self.user("owner", view.owner)
        view.thumbnail = self.url(view.thumbnail)
        _ensure("assets", len(view.assets) <= ASSETS_LIMIT, f"must be at most {ASSETS_LIMIT}")
        for number, asset in enumerate(view.assets):
            with _inside(f"assets.{number}"):
                self.read_asset(asset)
        self._common(view)
        _ensure("tags", not is_private(view.tags), "must not be of a private world")

    def read_asset(self, view: AssetView) -> None:
        _ensure("id", is_id(view.id, "f"), "must be f_…")
        _ensure("version", is_asset_version(view.version), "must be a version")
        for name in ("engine", "platform"):
            _ensure(name, is_platform(getattr(view, name)), "must be a name of a-z 0-9 . _ -")
        if not isinstance(view.hash, UnsetType):
            _ensure("hash", _HASH.fullmatch(view.hash) is not None, "must be a SHA-256 in hex")
        if not isinstance(view.size, UnsetType):
            _ensure("size", view.size <= MAX_TIME_MS, "is too large")
        view.url = self.url(view.url)
        self._times(view)

    def read_service(self, view: ServiceView) -> None:
        _ensure("id", is_service_id(view.id), "must be like com.example.voice")
        view.title = _text("title", view.title, _title, NAME_LIMIT)
        view.description = _description_of(view.description)
        view.owner = self.user("owner", view.owner)
        view.url = self.url(view.url)
        self._common(view)

    def read_instance(self, view: InstanceView) -> None:
        _ensure("id", is_id(view.id, "i"), "must be i_…")
        _ensure("name", is_instance_name(view.name), "must be an instance's name")
        if not isinstance(view.title, UnsetType):
            view.title = _text("title", view.title, _title, NAME_LIMIT)
        view.description = _description_of(view.description)
        view.world = self.world("world", view.world)
        view.owner = self.user("owner", view.owner)
        view.master = None if view.master is None else self.user("master", view.master)
        for name in ("connected", "queued"):
            _ensure(name, getattr(view, name) <= MAX_TIME_MS, "is too large")
        self._common(view)
        _ensure("tags", not is_private(view.tags), "must not be of a private instance")
        view.address = self._join_address(view.address)
        view.secure = self.source.secure

    def _join_address(self, text: str) -> str:
        """The address to join an instance at: the server's, or that of one of its gateways."""
        try:
            address = canonical(text)
        except ValueError:
            return self.source.address
        return address if address in self.hosts else self.source.address

    def read_server(self, view: ServerView) -> None:
        for name in ("id", "version"):
            _ensure(name, _TOKEN.fullmatch(getattr(view, name)) is not None, "is not valid")
        view.title = _text("title", view.title, _title, NAME_LIMIT)
        view.description = _description_of(view.description)
        view.icon = self.url(view.icon)
        _ensure("public_key", _KEY.fullmatch(view.public_key) is not None, "must be a key")
        self._address_of(view)
        self._times(view)
        if not isinstance(view.ready_at, UnsetType):
            _ensure("ready_at", view.ready_at <= MAX_TIME_MS, "must be milliseconds")
        view.address, view.secure = self.source.address, self.source.secure
        view.gateways = self.source.gateways

    def _address_of(self, view: ServerView) -> None:
        try:
            address = canonical(view.address)
        except ValueError as fault:
            raise _Wrong("address", str(fault)) from None
        _ensure("address", address == self.source.address, "must be the address that was asked")

    def read_player(self, view: PlayerInsideView) -> None:
        _ensure("player", is_id(view.player, "p"), "must be p_…")
        view.user = self.user("user", view.user)
        view.displayname = _text("displayname", view.displayname, _display_name, DISPLAY_NAME_LIMIT)
        _ensure("joined_at", view.joined_at <= MAX_TIME_MS, "must be milliseconds")

    def read_queue(self, view: QueueView) -> None:
        """Only the number: entries are private."""
        _ensure("queued", view.queued <= MAX_TIME_MS, "is too large")
        view.entry = view.items = UNSET
        view.total = view.limit = view.offset = view.next = UNSET

    def _common(self, view: UserView | WorldView | ServiceView | InstanceView) -> None:
        """The fields that these have in common."""
        _ensure("tags", len(view.tags) <= TAGS_LIMIT, f"must be at most {TAGS_LIMIT}")
        _ensure("tags", all(map(_TAG.fullmatch, view.tags)), "must be tags")
        self._times(view)
        view.server = self.source.address

    @staticmethod
    def _times(view: Any) -> None:
        for name in ("created_at", "updated_at"):
            _ensure(name, getattr(view, name) <= MAX_TIME_MS, "must be milliseconds since 1970")


_READ: Final[Mapping[Any, Callable[[_Reader, Any], None]]] = {
    UserView: _Reader.read_user,
    WorldView: _Reader.read_world,
    AssetView: _Reader.read_asset,
    ServiceView: _Reader.read_service,
    InstanceView: _Reader.read_instance,
    ServerView: _Reader.read_server,
    PlayerInsideView: _Reader.read_player,
    QueueView: _Reader.read_queue,
}
REMOTE_VIEWS: Final = frozenset(_READ)
"""The objects that can be read from other servers, alone or as items of a `ListView`."""


def read(data: bytes, question: Question, source: Source, own: str) -> Answer:
    """The answer of another server to a question; `data` is JSON, `own` this server's address.

    Raises:
        BadData: it is not JSON, or nested too deeply.
        MalformedData: it breaks a rule; the details name the field.
    """
    reader = _Reader(source, own, source.hosts)
    decoded = _decoded(data, _DECODED.get(question.view, question.view))
    if get_origin(question.view) is ListView:
        (view,) = get_args(question.view)
        return _read_list(reader, decoded, view, question)
    try:
        _READ[question.view](reader, decoded)
        if question.ref is not None:
            _ensure("id", _is_asked_for(decoded, question.ref), "must be the one asked for")
    except _Wrong as wrong:
        raise _malformed(wrong) from None
    return Answer(decoded, [frozenset(reader.ours)])


def _read_list(reader: _Reader, page: Any, view: Any, question: Question) -> Answer:
    """The page without the objects that nobody could read."""
    kept: list[Any] = []
    refs: list[frozenset[str]] = []
    left_out = 0
    check = _READ[view]
    try:
        _ensure("items", len(page.items) <= question.limit, "must be as many as asked for at most")
        _ensure("total", page.total <= MAX_TIME_MS, "is too large")
        if not isinstance(page.next, UnsetType):
            _ensure("next", CURSOR.fullmatch(page.next) is not None, "must be a place in a list")
        for number, item in enumerate(page.items):
            reader.ours = set()
            with _inside(f"items.{number}"):
                try:
                    check(reader, item)
                except _Unreadable:
                    left_out += 1
                    continue
            kept.append(item)
            refs.append(frozenset(reader.ours))
    except _Wrong as wrong:
        raise _malformed(wrong) from None
    shown = ListView(
        items=tuple(kept),
        total=page.total,
        limit=question.limit,
        offset=question.offset,
        next=page.next,
    )
    return Answer(shown, refs, left_out)


def _decoded(data: bytes, type_: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.ValidationError as fault:
        raise MalformedData(_detail_of(fault)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadData.field("data", "is not valid JSON") from None
    except RecursionError:
        raise BadData.field("data", "is nested too deeply") from None


def _detail_of(fault: msgspec.ValidationError) -> Detail:
    """The wrong field, as msgspec names it. Its text stays out, because it can quote the answer."""
    text = str(fault)
    path, missing = _PATH.search(text), _MISSING.match(text)
    steps = "" if path is None else path[1].replace("[...]", "")
    name = f"{steps}.{'' if missing is None else missing[1]}".strip(".")
    return Detail(name or "data", "is missing, or has another type or range")


def _malformed(wrong: _Wrong) -> MalformedData:
    return MalformedData.field(wrong.field, wrong.message)


class _inside:  # noqa: N801 - reads like a function
    """Names the object in which a value is wrong."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, wrong: BaseException | None, traceback: object) -> None:
        if isinstance(wrong, _Wrong):
            raise wrong.within(self._name) from None


def _ensure(name: str, valid: bool, message: str) -> None:
    if not valid:
        raise _Wrong(name, message)


def _text(name: str, text: str, type_: TypeAdapter[str], limit: int) -> str:
    """The text as this server would store it."""
    fits = len(text) <= limit * NFC_SHRINKS
    fits = fits and len(unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip()) <= limit
    _ensure(name, fits, f"must be at most {limit} characters")
    try:
        return type_.validate_python(text, strict=True)
    except ValidationError as faults:
        (fault, *_) = faults.errors(include_url=False, include_input=False)
        message = str(fault["ctx"]["message"]) if fault["type"] == "reileta" else "is not valid"
        raise _Unreadable(name, message) from None


def _description_of(text: str | UnsetType) -> str | UnsetType:
    if isinstance(text, UnsetType):
        return UNSET
    return _text("description", text, _description, DESCRIPTION_LIMIT)


def _is_asked_for(view: Any, ref: str) -> bool:
    """Whether the object has the id or the name that was asked for."""
    names: Iterable[str] = (view.id, getattr(view, "name", ""))
    return ref in names or getattr(view, "username", "").lower() == ref.lower()


def host_of_url(text: str, secure: bool) -> str | None:
    """The canonical address in a URL of a server that is reached over TLS, or not; None if the URL
    has another scheme, or is not one that this server would accept from a client."""
    scheme, colon, rest = text.partition("://")
    schemes = ("https", "wss") if secure else ("http", "ws", "https", "wss")
    if not colon or scheme not in schemes:
        return None
    try:
        url = _url.validate_python(f"https://{rest}", strict=True)
        authority = re.split(r"[/?#]", url.removeprefix("https://"), maxsplit=1)[0]
        return canonical(authority)
    except ValueError:  # pydantic's ValidationError is one
        return None
