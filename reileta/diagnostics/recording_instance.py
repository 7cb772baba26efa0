"""An instance that records each call of its rules.

`RecordingInstance` is an `Instance` whose changing methods are wrapped. Its queries cost nothing
more, and an instance without recording has no overhead at all.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import GenericAlias
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from reileta.records import InstanceChanges
from reileta.rules.instance.candidates import Candidate, Candidates, State
from reileta.rules.instance.instance import Instance

OPENING: Final = "__init__"
"""The rule that creates an instance."""

RULES: Final = (
    "absent",
    "administers",
    "admit",
    "candidate",
    "clock_was_set",
    "close",
    "remove_moderator",
    "transfer_master",
    "reassign_owner",
    "join",
    "leave",
    "lose_host",
    "disconnect",
    "exclude",
    "moderate",
    "add_moderator",
    "present",
    "refuse",
    "rename",
    "restore",
    "resume",
    "speak",
    "tick",
    "update",
    "withdraw",
)
"""The methods of `Instance` that change it."""


class CallRecorder(Protocol):
    """The receiver of the calls. `called` must not raise."""

    def called(
        self,
        rule: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        ids: Sequence[str],
        raised: str | None,
    ) -> None:
        """A rule call has ended; see `reileta.diagnostics.recording.Called`."""
        ...


Packer: TypeAlias = Callable[[Any], Any]


def _pack_candidates(candidates: Candidates) -> list[tuple[State, Candidate]]:
    return list(candidates.each())


def _unpack_candidates(some: list[tuple[State, Candidate]]) -> Candidates:
    candidates = Candidates()
    for state, one in some:
        candidates.put(state, one)
    return candidates


def _unpack_changes(given: dict[str, Any]) -> InstanceChanges:
    if "tags" in given:
        given["tags"] = frozenset(given["tags"])
    return InstanceChanges(**given)


class Call:
    """Encodes and decodes the arguments of one rule."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.function: Callable[..., Any] = getattr(Instance, rule)
        self.signature = inspect.signature(self.function)
        self._types: dict[str, Any] = {}
        self._packers: dict[str, Packer] = {}
        self._unpackers: dict[str, Packer] = {}
        for name, hint in typing.get_type_hints(self.function).items():
            if name not in ("new_player_id", "return"):
                self._learn(name, hint)

    def _learn(self, name: str, hint: Any) -> None:
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if hint is Candidates:
            hint = list[tuple[State, Candidate]]
            self._packers[name] = _pack_candidates
            self._unpackers[name] = _unpack_candidates
        elif hint is InstanceChanges:
            hint = dict[str, Any]
            self._packers[name] = InstanceChanges.given
            self._unpackers[name] = _unpack_changes
        elif origin is not None and issubclass(_class(origin), Mapping):
            hint = GenericAlias(dict, inner)
            self._packers[name] = dict
        elif origin is not None and _class(origin) is Iterable:
            hint = GenericAlias(tuple, (inner[0], ...))
            self._packers[name] = tuple
        elif float in (hint, *inner):  # an integer stays one
            hint = int | hint
        self._types[name] = hint

    @property
    def mutable(self) -> bool:
        """Whether arguments must be encoded before the call, which could change them."""
        return bool(self._packers)

    def packed(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The arguments as plain values."""
        bound = self.signature.bind(None, *args, **kwargs).arguments
        named = {name: value for name, value in bound.items() if name in self._types}
        for name, packer in self._packers.items():
            if name in named:
                named[name] = packer(named[name])
        return (), named

    def unpacked(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name, from a recording.

        Raises:
            TypeError, msgspec.ValidationError: they don't match this version's rule.
        """
        bound = self.signature.bind_partial(None, *args, **kwargs).arguments
        named: dict[str, Any] = {}
        for name, value in bound.items():
            if name in self._types:
                named[name] = msgspec.convert(value, self._types[name])
        for name, unpacker in self._unpackers.items():
            if name in named:
                named[name] = unpacker(named[name])
        return named


def _class(origin: Any) -> type:
    return origin if isinstance(origin, type) else object


CALLS: Final = {rule: Call(rule) for rule in (OPENING, *RULES)}


class RecordingInstance(Instance):
    """An instance whose rules are recorded; the arguments are those of `InstanceState`."""

    def __init__(self, tape: CallRecorder, *args: Any, **kwargs: Any) -> None:
        self._tape = tape
        self._ids: list[str] = []
        self._within = False
        make = kwargs.pop("new_player_id")

        def new_player_id() -> str:
            made: str = make()
            self._ids.append(made)
            return made

        packed = CALLS[OPENING].packed(args, {**kwargs, "new_player_id": new_player_id})
        super().__init__(*packed[0], **packed[1], new_player_id=new_player_id)
        tape.called(OPENING, *packed, (), None)


def _taped(call: Call) -> Callable[..., Any]:
    rule, function, mutable = call.rule, call.function, call.mutable

    @functools.wraps(function)
    def taped(self: RecordingInstance, *args: Any, **kwargs: Any) -> Any:
        if self._within:  # a rule that another rule calls
            return function(self, *args, **kwargs)
        packed = call.packed(args, kwargs) if mutable else (args, kwargs)
        raised: str | None = None
        self._within = True
        try:
            return function(self, *args, **kwargs)
        except BaseException as error:
            raised = type(error).__name__
            raise
        finally:
            self._within = False
            ids, self._ids = self._ids, []
            self._tape.called(rule, *packed, ids, raised)

    return taped


for _rule in RULES:
    setattr(RecordingInstance, _rule, _taped(CALLS[_rule]))
