"""`reileta top`: what it shows, and that it goes on after the connection was lost."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console
from websockets.sync.server import ServerConnection, serve

from reileta.top import BARS, TopError, TopState, Watcher, picture, printable, server_at, sparkline
from tests.e2e.clients import Json

NODE: Json = {
    "id": "local", "name": "one", "state": "ready", "here": True, "version": "0.1.0",
    "sockets": 5, "players": 4, "instances": 1, "cpu": 0.25, "lag_ms": 1.0,
    "memory_bytes": 104_857_600, "database": True, "failing": [], "crashes": 2,
}  # fmt: skip
INSTANCE: Json = {
    "id": "i_1", "name": "", "title": "Picnic\x1b[2J", "world": "w_1", "node": "local",
    "owner": "u_1@a", "capacity": 8, "connected": 4, "queued": 1, "messages_per_s": 80.5,
    "backlog_bytes": 0, "mailbox": 0, "restarts": 1,
}  # fmt: skip
FIGURES: Json = {
    "at": 1,
    "nodes": {"nodes": [NODE]},
    "figures": {"node": "local", "every_ms": 5000, "at": [1, 2], "series": {"players": [2, 4]}},
    "instances": {"items": [INSTANCE], "total": 7, "limit": 30, "offset": 0},
}


def test_the_picture_has_nodes_figures_and_instances() -> None:
    state = TopState()
    state.take(FIGURES)
    state.take({"at": 2, "figures": {**FIGURES["figures"], "series": {"players": [3]}}})
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(picture(state, 40))
    text = console.export_text()
    assert "Picnic?[2J" in text
    assert "instance (7)" in text
    for told in ("one", "ready", "25%", "100 MiB", "4/8", "80.5", "…", "▅█▆"):
        assert told in text, told


def test_a_terminal_obeys_nothing_that_users_wrote() -> None:
    assert printable("a\x1b]0;x\x07\u202eb\nc") == "a?]0;x??b?c"


def test_the_highest_bar_is_full() -> None:
    assert sparkline([0.0, 1.0, 2.0], 2) == BARS[round(3.5)] + BARS[-1]
    assert sparkline([0.0, 0.0], 5) == BARS[0] * 2
    assert sparkline([], 5) == ""


@pytest.mark.parametrize("url", ["", "play.example.org", "ftp://a", "http://", "http://a?b=1"])
def test_a_url_is_checked(url: str) -> None:
    with pytest.raises(ValueError, match="must be like"):
        server_at(url)


def test_the_socket_is_below_the_base_path() -> None:
    assert server_at("https://a.example/base/").socket == "wss://a.example/base/api/ws"


@contextmanager
def scripted(refusal: Json | None = None) -> Iterator[str]:
    """A server that shows figures once to each socket, and closes it."""

    def handle(socket: ServerConnection) -> None:
        for _ in range(2):
            asked = json.loads(socket.recv(60))
            answer: Json = {"state": asked["state"], "command": asked["command"], "data": {}}
            if refusal is not None and asked["command"] == "admin-watch":
                answer["error"] = refusal
            socket.send(json.dumps({"command": "authenticated", "data": {}}))
            socket.send(json.dumps(answer))
        socket.send(json.dumps({"command": "admin-figures", "data": FIGURES}))

    with serve(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_it_comes_back_and_shows_all_samples_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with scripted() as url:
        updates = Watcher(server_at(url), "ua_x", None).updates({"topics": []})
        seen = []
        for state in updates:
            seen.append((state.connected, list(state.series["players"])))
            if len(seen) == 3:
                break
        updates.close()
    assert seen == [(True, [2, 4]), (False, [2, 4]), (True, [2, 4])]


def test_who_is_not_an_admin_is_told_so() -> None:
    with scripted({"code": 4, "message": "Permission denied"}) as url, pytest.raises(TopError) as e:
        next(Watcher(server_at(url), "ua_x", None).updates({"topics": []}))
    assert "not an admin" in str(e.value)


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(TopError, match=r"http://127\.0\.0\.1:1 does not answer"):
        next(Watcher(server_at("http://127.0.0.1:1"), "ua_x", None).updates({"topics": []}))
