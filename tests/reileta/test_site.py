"""The beginning of every URL."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from reileta.settings import Settings
from reileta.site import OWN_ROOTS, Site, without_base_path


def test_urls() -> None:
    plain = Site("play.example.org:3032")
    assert plain.url == "http://play.example.org:3032"
    assert plain.websocket_url == "ws://play.example.org:3032"
    secure = Site("[2001:db8::1]", secure=True, base_path="/a/b")
    assert secure.url == "https://[2001:db8::1]/a/b"
    assert secure.websocket_url == "wss://[2001:db8::1]/a/b"


@pytest.mark.parametrize(
    ("text", "path"), [("/vr", "/vr"), ("/vr/", "/vr"), ("/a/b-c~1", "/a/b-c~1"), ("/", "")]
)
def test_base_paths(text: str, path: str) -> None:
    assert Settings(base_path=text).base_path == path


@pytest.mark.parametrize(
    "text",
    ["vr", "/a//b", "/a b", "/%76r", "/vr?x", "/vr#", "/..", "/a/../b", "/.", "/ü", '/"', ""]
    + [f"/{root}/x" for root in sorted(OWN_ROOTS)],
)
def test_what_is_no_base_path(text: str) -> None:
    with pytest.raises(ValidationError):
        Settings(base_path=text)


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("/vr/api/time", "/api/time"),
        ("/vr", "/"),
        ("/vr/", "/"),
        ("/api/time", "/api/time"),
        ("/vrx/api", "/vrx/api"),
        ("/vr//api", "/vr//api"),
        ("/vr/vr/api", "/vr/api"),
        ("/", "/"),
    ],
)
def test_paths_without_the_base_path(path: str, local: str) -> None:
    assert without_base_path(path, "/vr") == local
    assert without_base_path(path, "") == path
