from __future__ import annotations

import websockets.frames

from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import encode


def test_standard_codes_are_those_of_the_standard() -> None:
    standard = {code.value: code.name for code in websockets.frames.CloseCode}
    for code in CloseCode:
        if code < 4000:
            assert standard[code] == code.name


def test_every_code_is_sent_by_an_api() -> None:
    for code in CloseCode:
        assert code.registry or code.session


def test_a_code_is_a_number_in_messages() -> None:
    assert encode({"code": CloseCode.TOO_SLOW}) == b'{"code":4008}'
