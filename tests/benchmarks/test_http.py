"""HTTP answers and requests by hand."""

from __future__ import annotations

import pytest

from benchmarks.connect import Target
from benchmarks.errors import BenchmarkError
from benchmarks.http import answer_status, request

ANSWER = b"HTTP/1.1 200 \r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


def test_an_answer_is_complete_with_its_last_byte() -> None:
    statuses = [answer_status(ANSWER[:size]) for size in range(len(ANSWER) + 1)]
    assert statuses == [None] * len(ANSWER) + [200]


def test_an_answer_without_a_length_is_said() -> None:
    with pytest.raises(BenchmarkError, match="Content-Length"):
        answer_status(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_a_request_carries_host_and_token() -> None:
    lines = request(Target("h", 80, False), "/api/time", "ua_1").decode().split("\r\n")
    assert lines[0] == "GET /api/time HTTP/1.1"
    assert "Host: h:80" in lines
    assert "Authorization: Bearer ua_1" in lines
    assert lines[-2:] == ["", ""]
    assert "Authorization" not in request(Target("h", 80, False), "/", None).decode()
