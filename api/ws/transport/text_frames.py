"""Reads the frame that nearly all are: a whole text, masked, in the bytes that just came in.

`websockets` reads every frame in generators, which costs more than the rest of a small message. So
`text_frames` takes the leading frames of that form. A small one of which only the beginning is
there waits for the rest (`begins_text`), since a full read hardly ever ends where a frame does. The
protocol's parser gets everything else. As the search must begin where a frame does, `FrameTracker`
follows the frames that the parser got.
"""

from __future__ import annotations

from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # on platforms without a wheel
    from websockets.utils import apply_mask

_TEXT: Final = 0x81
"""The first byte of a text in one frame: FIN, no extension, opcode 1."""
_MASKED: Final = 0x80
_SIZE_16: Final = 126
_SIZE_64: Final = 127
_SMALLEST: Final = 6
"""Bytes of an empty frame of a client: two, and the mask."""
_LARGEST_HEADER: Final = 14


def text_frames(data: bytes, limit_bytes: int) -> tuple[list[bytes], int]:
    """The texts at the beginning of `data`, where a frame begins, and how many bytes they take.

    A frame of another form, one over the limit, and one that is not there as a whole end the
    search. They are for the parser, which also refuses those that are not allowed.
    """
    texts: list[bytes] = []
    at, size = 0, len(data)
    while size - at >= _SMALLEST and data[at] == _TEXT:
        length, start = data[at + 1] - _MASKED, at + _SMALLEST
        if length == _SIZE_16:
            length, start = data[at + 2] << 8 | data[at + 3], start + 2
            if length < _SIZE_16:  # allowed, but nobody sends it
                break
        elif not 0 <= length < _SIZE_16:
            break
        end = start + length
        if end > size or length > limit_bytes:
            break
        texts.append(apply_mask(data[start:end], data[start - 4 : start]))
        at = end
    return texts, at


def begins_text(data: bytes, limit_bytes: int) -> bool:
    """Whether `data` is the beginning of a frame that `text_frames` takes once the rest is there.

    `limit_bytes` should be small: the beginning is looked at again with each piece of the rest.
    """
    if not data or data[0] != _TEXT or limit_bytes < 0:
        return False
    if len(data) == 1:
        return True
    length = data[1] - _MASKED
    if length == _SIZE_16:
        if len(data) < 4:
            return True
        length = data[2] << 8 | data[3]
        if length < _SIZE_16:
            return False
    elif not 0 <= length < _SIZE_16:
        return False
    return length <= limit_bytes


class FrameTracker:
    """Knows whether the next byte for the parser begins a frame."""

    __slots__ = ("_header", "_missing")

    def __init__(self) -> None:
        self._header = b""
        """The beginning of a header that is not there as a whole."""
        self._missing = 0
        """Bytes of the last frame's payload that are still to come."""

    @property
    def between_frames(self) -> bool:
        """Whether all frames so far are complete."""
        return not self._missing and not self._header

    def follow(self, data: bytes) -> None:
        """Notes the bytes that the parser gets."""
        at = min(self._missing, len(data))
        self._missing -= at
        while at < len(data):
            known = len(self._header)
            header = self._header + data[at : at + _LARGEST_HEADER - known]
            length = _payload_length(header)
            if length is None:
                self._header = header
                return
            header_bytes, payload_bytes = length
            self._header = b""
            at += header_bytes - known
            here = min(payload_bytes, len(data) - at)
            self._missing = payload_bytes - here
            at += here


def _payload_length(header: bytes) -> tuple[int, int] | None:
    """The length of a header, and of the payload behind it; None if more of it must come."""
    if len(header) < 2:
        return None
    length, mask = header[1] & ~_MASKED, 4 if header[1] & _MASKED else 0
    extended = {_SIZE_16: 2, _SIZE_64: 8}.get(length, 0)
    size = 2 + extended + mask
    if len(header) < size:
        return None
    if extended:
        length = int.from_bytes(header[2 : 2 + extended], "big")
    return size, length
