from __future__ import annotations

import pytest

from reileta.errors import BadData
from reileta.federation.answer_bounds import (
    BODY_BYTES,
    CHUNKED_BYTES,
    CHUNKED_LINES,
    HEAD_BYTES,
    HEAD_LINES,
    INTERIM_ANSWERS,
    LARGE_READ,
    SMALL_READ,
    AnswerBounds,
)

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def test_a_head_is_bounded() -> None:
    bounds = AnswerBounds()
    bounds.admit(b"x" * (HEAD_BYTES + SMALL_READ))
    with pytest.raises(BadData):
        bounds.admit(b"x")


def test_a_head_has_few_lines() -> None:
    bounds = AnswerBounds()
    bounds.admit(b"a:\n" * HEAD_LINES)
    with pytest.raises(BadData):
        bounds.admit(b"a:\n")


def test_lines_of_a_body_that_came_with_its_head_are_free() -> None:
    bounds = AnswerBounds()
    bounds.admit(HEAD + b"{\n" * HEAD_LINES * 2)


def test_interim_answers_are_few() -> None:
    bounds = AnswerBounds()
    bounds.admit(b"HTTP/1.1 103 Hints\r\n\r\n" * INTERIM_ANSWERS + HEAD)
    with pytest.raises(BadData):
        AnswerBounds().admit(b"HTTP/1.1 103 Hints\r\n\r\n" * (INTERIM_ANSWERS + 1) + HEAD)


def test_a_body_with_a_length_is_read_in_large_parts_and_may_have_lines() -> None:
    bounds = AnswerBounds()
    assert bounds.read_bytes == SMALL_READ
    bounds.admit(HEAD)
    bounds.begin_body(chunked=False)
    assert bounds.read_bytes == LARGE_READ
    bounds.admit(b"\n" * BODY_BYTES)
    with pytest.raises(BadData):
        bounds.admit(b"x")


def test_a_chunked_body_is_read_in_small_parts_and_has_few_lines() -> None:
    bounds = AnswerBounds()
    bounds.admit(HEAD)
    bounds.begin_body(chunked=True)
    assert bounds.read_bytes == SMALL_READ
    bounds.admit(b"1\r\nx\r\n" * (CHUNKED_LINES // 2))
    with pytest.raises(BadData):
        bounds.admit(b"1\r\n")


def test_a_chunked_body_is_bounded() -> None:
    bounds = AnswerBounds()
    bounds.begin_body(chunked=True)
    bounds.admit(b"x" * (BODY_BYTES + CHUNKED_BYTES))
    with pytest.raises(BadData):
        bounds.admit(b"x")
