"""The routes of the built pages: `/`, `/console`, `/docs`, `/docs/sockets` and `/assets/…`.

`make web` builds the pages into `dist/`, and a wheel contains them. Without a build, `/` leads to
`/docs`. The server reads all of it once, at its start: so a build beside a running server changes
nothing for its clients.

Names of assets contain a hash of their content, so browsers keep them for ever. Pages have entity
tags, and browsers ask for them each time. Their Content-Security-Policy allows nothing from another
host, and neither scripts nor styles inside the page. Swagger UI, which is on `/docs`, writes HTML
from text and has pictures in its style sheet: that page alone allows these two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from quart import Blueprint, Response, request
from quart.wrappers import Request
from werkzeug.http import parse_accept_header, parse_etags

from reileta.errors import NotFound
from reileta.site import Site

DIST: Final = Path(__file__).parent / "dist"
"""Where a build is: `clients/web/build_pages.py`."""
PATHS: Final = {
    "client": "/",
    "console": "/console",
    "docs": "/docs",
    "sockets": "/docs/sockets",
}
"""The pages, and where they are."""
_STRICT: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
}
_VIEWER: Final = {**_STRICT, "img-src": "'self' data:"}
del _VIEWER["require-trusted-types-for"]


def _policy(directives: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in directives.items())


PAGE_HEADERS: Final = {
    "Content-Security-Policy": _policy(_STRICT),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), xr-spatial-tracking=(self)",
    "Cache-Control": "no-cache",
}
VIEWER_HEADERS: Final = {**PAGE_HEADERS, "Content-Security-Policy": _policy(_VIEWER)}
ASSET_HEADERS: Final = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Vary": "Accept-Encoding",
}
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
_ENCODINGS: Final = {"br": ".br", "gzip": ".gz"}
"""Encodings of assets, the smallest first, and how the names of their files end."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the build.

    Attributes:
        tag: its entity tag.
        encoded: its content by encoding, smallest first; `identity` is always there.
    """

    content_type: str
    tag: str
    encoded: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Pages:
    """A build: HTML by the name of the page, and assets by file name."""

    html: Mapping[str, bytes]
    assets: Mapping[str, Asset]

    @classmethod
    def read(cls, folder: Path = DIST) -> Pages | None:
        """The build in that folder; None if there is none."""
        try:
            html = {name: (folder / f"{name}.html").read_bytes() for name in PATHS}
            assets = {
                file.name: _asset(file)
                for file in (folder / "assets").iterdir()
                if file.suffix in _TYPES
            }
        except FileNotFoundError:
            return None
        return cls(html, assets)


def _asset(file: Path) -> Asset:
    content = file.read_bytes()
    encoded = {}
    for encoding, suffix in _ENCODINGS.items():
        smaller = file.with_name(file.name + suffix)
        if smaller.exists():
            encoded[encoding] = smaller.read_bytes()
    return Asset(_TYPES[file.suffix], _tag(content), {**encoded, "identity": content})


def _tag(content: bytes) -> str:
    return blake2b(content, digest_size=12).hexdigest()


def pages_blueprint(site: Site, pages: Pages | None) -> Blueprint:
    """The pages. Without a build, `/` leads to `/docs`, and the others do not exist.

    `/docs` is here with a build, and in `api.openapi.page` without one.
    """
    blueprint = Blueprint("pages", __name__)
    html = {} if pages is None else {name: _page(html, site) for name, html in pages.html.items()}
    assets = {} if pages is None else pages.assets

    @blueprint.get(PATHS["client"])
    async def client() -> Response:
        if pages is None:
            return Response(b"", 302, {"Location": f"{site.base_path}/docs"})
        return _answer(request, html["client"], PAGE_HEADERS)

    @blueprint.get(PATHS["console"])
    async def console() -> Response:
        return _answer(request, html.get("console"), PAGE_HEADERS)

    if pages is not None:

        @blueprint.get(PATHS["docs"])
        async def docs() -> Response:
            return _answer(request, html["docs"], VIEWER_HEADERS)

    @blueprint.get(PATHS["sockets"])
    async def sockets() -> Response:
        return _answer(request, html.get("sockets"), PAGE_HEADERS)

    @blueprint.get("/assets/<name>")
    async def asset(name: str) -> Response:
        return _answer(request, assets.get(name), ASSET_HEADERS)

    return blueprint


def _page(html: bytes, site: Site) -> Asset:
    body = html.replace(b"{base}", site.base_path.encode())
    return Asset("text/html; charset=utf-8", _tag(body), {"identity": body})


def _answer(asked: Request, asset: Asset | None, headers: Mapping[str, str]) -> Response:
    """The asset in the smallest encoding that the client takes; 304 if the client has it."""
    if asset is None:
        raise NotFound
    accepted = parse_accept_header(asked.headers.get("Accept-Encoding"))
    encoding = next((name for name in asset.encoded if accepted[name] > 0), "identity")
    # Encodings have tags of their own, because their bytes differ.
    tag = f"{asset.tag}-{encoding}"
    sent = {**headers, "ETag": f'"{tag}"'}
    known = asked.headers.get("If-None-Match")
    if known is not None and parse_etags(known).contains_weak(tag):
        unchanged = Response(b"", 304, sent)
        del unchanged.headers["Content-Length"], unchanged.headers["Content-Type"]
        return unchanged
    if encoding != "identity":
        sent["Content-Encoding"] = encoding
    return Response(asset.encoded[encoding], 200, sent, content_type=asset.content_type)
