"""Requests that are not HTTP, or that two parsers could read in two ways, and what each must get.

`REFUSED` are answered with an error and end the connection, whatever follows them. `ACCEPTED` mean
one thing to everybody, and what follows them is the next request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n"
"""Behind each case; a server that answers it has taken a part of the case for a request."""
BODY: Final = "/api/auth/login"
"""A path whose handler reads its body."""


@dataclass(frozen=True)
class Case:
    """One request, what it may be answered, and whether the connection goes on."""

    name: str
    sent: bytes
    statuses: tuple[int, ...]


def get(*lines: bytes, path: bytes = b"/api/time", method: bytes = b"GET") -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: x", *lines, b"", b""])


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    head = [b"POST " + BODY.encode() + b" HTTP/" + version, b"Host: x"]
    head.append(b"Content-Type: application/json")
    return b"\r\n".join([*head, *lines, b"", b""]) + body


def hosted(*lines: bytes, path: bytes = b"/api/time", version: bytes = b"1.1") -> bytes:
    """A request with those lines for `Host`."""
    return b"\r\n".join([b"GET " + path + b" HTTP/" + version, *lines, b"", b""])


def chunked(body: bytes, *lines: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", *lines, body=body)


HOSTS: Final = {
    "empty": b"",
    "space": b"a b",
    "comma": b"a,b",
    "path": b"a/b",
    "userinfo": b"u@a",
    "query": b"a?b",
    "fragment": b"a#b",
    "quote": b'a"b',
    "backslash": b"a\\b",
    "less-than": b"<script>",
    "percent": b"a%00b",
    "not ASCII": "é".encode(),
    "bytes": b"\xff\xfe",
    "two dots": b"a..b",
    "dot": b".",
    "port only": b":80",
    "port not a number": b"a:b",
    "port signed": b"a:-1",
    "port large": b"a:65536",
    "port huge": b"a:" + b"9" * 100,
    "two ports": b"a:1:2",
    "bracket": b"[::1",
    "bracket alone": b"]",
    "bracket empty": b"[]",
    "IPv6 bare": b"::1",
    "bracket and more": b"[::1]a",
    "zone": b"[fe80::1%25eth0]",
    "long": b"a" * 300,
    "long label": b"a" * 64 + b".example",
    "scheme": b"http://a",
    "wildcard": b"*",
    "braces": b"{{7*7}}",
    "dollar": b"${jndi:ldap://x}",
}

TRANSFERS: Final = {
    "xchunked": (b"Transfer-Encoding: xchunked", (400, 501)),
    "identity": (b"Transfer-Encoding: identity", (400, 501)),
    "empty": (b"Transfer-Encoding:", (400, 501)),
    "gzip": (b"Transfer-Encoding: gzip", (400, 501)),
    "gzip, chunked": (b"Transfer-Encoding: gzip, chunked", (400, 501)),
    "chunked, gzip": (b"Transfer-Encoding: chunked, gzip", (400, 501)),
    "chunked, chunked": (b"Transfer-Encoding: chunked, chunked", (400, 501)),
    "chunked, identity": (b"Transfer-Encoding: chunked, identity", (400, 501)),
    "chunked,": (b"Transfer-Encoding: chunked,", (400, 501)),
    ", chunked": (b"Transfer-Encoding: , chunked", (400, 501)),
    "quoted": (b'Transfer-Encoding: "chunked"', (400, 501)),
    "parameter": (b"Transfer-Encoding: chunked;q=1", (400, 501)),
    "vertical tab": (b"Transfer-Encoding: \x0bchunked", (400, 501)),
    "form feed": (b"Transfer-Encoding: chunked\x0c", (400, 501)),
    "NUL": (b"Transfer-Encoding: chunked\x00", (400, 501)),
    "no-break space": (b"Transfer-Encoding: \xa0chunked", (400, 501)),
    "twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", (400, 501)),
    "chunked then identity": (
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        (400, 501),
    ),
    "identity then chunked": (
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        (400, 501),
    ),
    "space before the colon": (b"Transfer-Encoding : chunked", (400,)),
    "tab before the colon": (b"Transfer-Encoding\t: chunked", (400,)),
    "space before the name": (b" Transfer-Encoding: chunked", (400,)),
    "folded": (b"Transfer-Encoding:\r\n chunked", (400,)),
    "folded later": (b"Transfer-Encoding: chunked\r\n , identity", (400,)),
    "bare CR": (b"X: y\rTransfer-Encoding: chunked", (400,)),
    "bare LF": (b"X: y\nTransfer-Encoding: chunked", (400,)),
}

LENGTHS: Final = {
    "empty": b"Content-Length:",
    "plus": b"Content-Length: +3",
    "minus": b"Content-Length: -3",
    "minus zero": b"Content-Length: -0",
    "hexadecimal": b"Content-Length: 0x3",
    "fraction": b"Content-Length: 3.0",
    "exponent": b"Content-Length: 3e0",
    "underscore": b"Content-Length: 0_3",
    "word": b"Content-Length: three",
    "list": b"Content-Length: 3, 3",
    "list of different": b"Content-Length: 3, 4",
    "space inside": b"Content-Length: 3 3",
    "Arabic digit": "Content-Length: ٣".encode(),
    "superscript": b"Content-Length: \xb3",
    "huge": b"Content-Length: 99999999999999999999999999",
    "two to the 64th and 3": b"Content-Length: 18446744073709551619",
    "twice": b"Content-Length: 3\r\nContent-Length: 3",
    "twice and different": b"Content-Length: 3\r\nContent-Length: 0",
    "space before the colon": b"Content-Length : 3",
    "folded": b"Content-Length:\r\n 3",
    "NUL": b"Content-Length: 3\x00",
}

CHUNKS: Final = {
    "size with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "size and a space": b"3 \r\nabc\r\n0\r\n\r\n",
    "a space and a size": b" 3\r\nabc\r\n0\r\n\r\n",
    "plus": b"+3\r\nabc\r\n0\r\n\r\n",
    "minus": b"-3\r\nabc\r\n0\r\n\r\n",
    "underscore": b"0_3\r\nabc\r\n0\r\n\r\n",
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "extension alone": b";x\r\nabc\r\n0\r\n\r\n",
    "two to the 64th and 3": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "huge": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "overlong size": b"0" * 600 + b"3\r\nabc\r\n0\r\n\r\n",
    "overlong extension": b"3;" + b"x" * 9_000 + b"\r\nabc\r\n0\r\n\r\n",
    "extension with NUL": b"3;\x00\r\nabc\r\n0\r\n\r\n",
    "extension with LF": b"3;x\nabc\r\n0\r\n\r\n",
    "extension with CR": b"3;x\rabc\r\n0\r\n\r\n",
    "size and bare LF": b"3\nabc\n0\n\n",
    "data and bare LF": b"3\r\nabc\n0\r\n\r\n",
    "data and bare CR": b"3\r\nabc\r0\r\n\r\n",
    "too much data": b"3\r\nabcd\r\n0\r\n\r\n",
    "no line break": b"3\r\nabc0\r\n\r\n",
    "end and bare LF": b"3\r\nabc\r\n0\n\n",
    "trailer without a colon": b"0\r\ntrailer\r\n\r\n",
    "trailer with a space": b"0\r\nX : y\r\n\r\n",
    "trailer with NUL": b"0\r\nX: \x00\r\n\r\n",
    "trailer and bare LF": b"0\r\nX: y\n\r\n",
    "trailers without end": b"0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    "a request for a trailer": b"0\r\nGET / HTTP/1.1\r\n\r\n",
}

HEADS: Final = {
    "nothing but lines": (b"\r\n" * 20, (400,)),
    "NULs": (b"\x00\x00\x00\x00\r\n\r\n", (400,)),
    "a word": (b"hello\r\n\r\n", (400,)),
    "HTTP/0.9": (b"GET /api/time\r\n\r\n", (400,)),
    "HTTP/0.9 in name": (b"GET /api/time HTTP/0.9\r\nHost: x\r\n\r\n", (400,)),
    "HTTP/1.2": (b"GET /api/time HTTP/1.2\r\nHost: x\r\n\r\n", (400, 505)),
    "HTTP/2.0": (b"GET /api/time HTTP/2.0\r\nHost: x\r\n\r\n", (400, 505)),
    "HTTP/3.0": (b"GET /api/time HTTP/3.0\r\nHost: x\r\n\r\n", (400, 505)),
    "HTTP/1.10": (b"GET /api/time HTTP/1.10\r\nHost: x\r\n\r\n", (400,)),
    "HTTP/1": (b"GET /api/time HTTP/1\r\nHost: x\r\n\r\n", (400,)),
    "HTTP/01.1": (b"GET /api/time HTTP/01.1\r\nHost: x\r\n\r\n", (400,)),
    "http/1.1": (b"GET /api/time http/1.1\r\nHost: x\r\n\r\n", (400,)),
    "HTP/1.1": (b"GET /api/time HTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    "RTSP": (b"GET /api/time RTSP/1.0\r\nHost: x\r\n\r\n", (400,)),
    "ICE": (b"SOURCE /api/time ICE/1.0\r\nHost: x\r\n\r\n", (400,)),
    "a space behind the version": (b"GET /api/time HTTP/1.1 \r\nHost: x\r\n\r\n", (400,)),
    "two spaces": (b"GET  /api/time HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    "two spaces later": (b"GET /api/time  HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    "a tab": (b"GET\t/api/time HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    "a space first": (b" GET /api/time HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    "a space in the path": (b"GET /api/ time HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    "no path": (b"GET HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    "lower-case method": (get(method=b"get"), (400,)),
    "mixed method": (get(method=b"Get"), (400,)),
    "unknown method": (get(method=b"BREW"), (400, 501)),
    "long method": (get(method=b"G" * 9_000), (400, 431, 501)),
    "bytes for a method": (get(method=b"\xff\xfe"), (400,)),
    "method with NUL": (get(method=b"GE\x00T"), (400,)),
    "PRI": (get(method=b"PRI"), (400,)),
    "PRI * HTTP/2.0 and a request": (b"PRI * HTTP/2.0\r\nHost: x\r\n\r\n", (400,)),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", (400, 405, 501)),
    "CONNECT with a path": (get(method=b"CONNECT"), (400, 405, 501)),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", (400, 404)),
    "GET *": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    "two slashes": (get(path=b"//api/time"), (400,)),
    "another host in the path": (get(path=b"//evil.example/api/time"), (400,)),
    "no slash": (get(path=b"api/time"), (400,)),
    "a question mark first": (get(path=b"?x"), (400,)),
    "fragment": (get(path=b"/api/time#x"), (400,)),
    "fragment in the query": (get(path=b"/api/time?x#y"), (400,)),
    "path not ASCII": (get(path="/api/é".encode()), (400,)),
    "path of bytes": (get(path=b"/api/\xff"), (400,)),
    "query not ASCII": (get(path=b"/api/time?\xc3\xa9"), (400,)),
    "path with NUL": (get(path=b"/api/\x00time"), (400,)),
    "path with DEL": (get(path=b"/api/\x7f"), (400,)),
    "path with a tab": (get(path=b"/api/\ttime"), (400,)),
    "path with CR": (get(path=b"/api/\rtime"), (400,)),
    "absolute without a host": (get(path=b"http:///api/time"), (400,)),
    "absolute with userinfo": (get(path=b"http://u:p@x/api/time"), (400,)),
    "absolute with a bracket": (get(path=b"http://[x/api/time"), (400,)),
    "absolute with a fragment": (get(path=b"http://x/api/time#a"), (400,)),
    "absolute with two slashes": (get(path=b"http://x//api/time"), (400,)),
    "absolute of another scheme": (get(path=b"ftp://x/api/time"), (400,)),
    "absolute with a bad port": (get(path=b"http://x:99999/api/time"), (400,)),
    "scheme alone": (get(path=b"http:/api/time"), (400,)),
    "a target that is too long": (get(path=b"/api/time?" + b"x" * 9_000), (414, 431)),
    "bare LF everywhere": (b"GET /api/time HTTP/1.1\nHost: x\n\n", (400,)),
    "bare LF after the line": (b"GET /api/time HTTP/1.1\nHost: x\r\n\r\n", (400,)),
    "bare LF after a header": (b"GET /api/time HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", (400,)),
    "bare LF at the end": (b"GET /api/time HTTP/1.1\r\nHost: x\r\n\n", (400,)),
    "bare CR after the line": (b"GET /api/time HTTP/1.1\rHost: x\r\n\r\n", (400,)),
    "bare CR after a header": (b"GET /api/time HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", (400,)),
    "bare CR at the end": (b"GET /api/time HTTP/1.1\r\nHost: x\r\n\rX: y\r\n\r\n", (400,)),
    "CR twice": (b"GET /api/time HTTP/1.1\r\r\nHost: x\r\n\r\n", (400,)),
    "CR twice after a header": (b"GET /api/time HTTP/1.1\r\nHost: x\r\r\n\r\n", (400,)),
    "obs-fold": (get(b"A: b", b" c"), (400,)),
    "obs-fold with a tab": (get(b"A: b", b"\tc"), (400,)),
    "obs-fold first": (b"GET /api/time HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n", (400,)),
    "a line of spaces": (get(b" "), (400,)),
    "space before the colon": (get(b"A : b"), (400,)),
    "tab before the colon": (get(b"A\t: b"), (400,)),
    "space in a name": (get(b"A B: c"), (400,)),
    "no name": (get(b": b"), (400,)),
    "no colon": (get(b"AB"), (400,)),
    "name with NUL": (get(b"A\x00: b"), (400,)),
    "name not ASCII": (get("é: b".encode()), (400,)),
    "name of bytes": (get(b"\xff: b"), (400,)),
    "name with a bracket": (get(b"A(b): c"), (400,)),
    "value with NUL": (get(b"A: \x00"), (400,)),
    "value with BEL": (get(b"A: \x07"), (400,)),
    "value with DEL": (get(b"A: \x7f"), (400,)),
    "a header that is too long": (get(b"A: " + b"x" * 9_000), (431,)),
    "a name that is too long": (get(b"A" * 9_000 + b": b"), (431,)),
    "too many headers": (get(*[b"X-%d: y" % n for n in range(120)]), (431,)),
    "a head that is too long": (get(*[b"X-%d: " % n + b"y" * 500 for n in range(60)]), (431,)),
    "a head without an end": (get(*[b"X-%d: " % n + b"y" * 500 for n in range(60)])[:-4], (431,)),
    "HTTP2-Settings": (get(b"HTTP2-Settings: !!!"), (400,)),
    "HTTP2-Settings of an odd size": (get(b"HTTP2-Settings: AAAA"), (400,)),
    "HTTP2-Settings twice": (get(b"HTTP2-Settings: ", b"HTTP2-Settings: "), (400,)),
    "upgrade over HTTP/1.0": (
        hosted(b"Host: x", b"Upgrade: websocket", b"Connection: upgrade", version=b"1.0"),
        (400,),
    ),
    "h2c over HTTP/1.0": (
        hosted(b"Host: x", b"Upgrade: h2c", b"Connection: upgrade", version=b"1.0"),
        (400,),
    ),
    "upgrade twice": (get(b"Upgrade: websocket", b"Upgrade: h2c"), (400,)),
    "upgrade with a body": (
        get(b"Upgrade: websocket", b"Connection: Upgrade", b"Content-Length: 3") + b"abc",
        (400,),
    ),
    "upgrade with chunks": (
        get(b"Upgrade: websocket", b"Connection: Upgrade", b"Transfer-Encoding: chunked")
        + b"0\r\n\r\n",
        (400,),
    ),
    "TLS": (
        bytes.fromhex("16030100750100007103035349") + bytes(range(32)) + b"\r\n\r\n",
        (400,),
    ),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", (400,)),
    "PROXY": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n\r\n", (400,)),
    "PROXY before a request": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + get(), (400,)),
    "an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (400,)),
    "a byte order mark": (b"\xef\xbb\xbf" + get(), (400,)),
    "no Host": (hosted(), (400,)),
    "two Hosts": (hosted(b"Host: x", b"Host: x"), (400,)),
    "two different Hosts": (hosted(b"Host: x", b"Host: y"), (400,)),
    "two Hosts over HTTP/1.0": (hosted(b"Host: x", b"Host: y", version=b"1.0"), (400,)),
    "a Host of another case beside it": (hosted(b"Host: x", b"hOST: y"), (400,)),
    "absolute and no Host": (hosted(path=b"http:///x"), (400,)),
    "length and chunks": (
        post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        (400,),
    ),
    "chunks and length": (
        post(b"Transfer-Encoding: chunked", b"Content-Length: 44", body=b"0\r\n\r\n"),
        (400,),
    ),
    "length zero and chunks": (
        post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        (400,),
    ),
    "length and identity": (
        post(b"Content-Length: 3", b"Transfer-Encoding: identity", body=b"abc"),
        (400, 501),
    ),
    "chunks over HTTP/1.0": (
        post(b"Transfer-Encoding: chunked", version=b"1.0", body=b"0\r\n\r\n"),
        (400,),
    ),
}

REFUSED: Final = (
    *(Case(name, sent, statuses) for name, (sent, statuses) in HEADS.items()),
    *(Case(f"Host: {name}", hosted(b"Host: " + host), (400,)) for name, host in HOSTS.items()),
    *(
        Case(f"Host over HTTP/1.0: {name}", hosted(b"Host: " + host, version=b"1.0"), (400,))
        for name, host in HOSTS.items()
    ),
    *(
        Case(f"absolute: {name}", hosted(b"Host: x", path=b"http://" + host + b"/x"), (400,))
        for name, host in HOSTS.items()
        if host and not set(host) & set(b"/?# ")
    ),
    *(
        Case(f"Transfer-Encoding: {name}", post(line, body=b"0\r\n\r\n"), statuses)
        for name, (line, statuses) in TRANSFERS.items()
    ),
    *(
        Case(f"Content-Length: {name}", post(line, body=b"abc"), (400,))
        for name, line in LENGTHS.items()
    ),
    *(Case(f"chunks: {name}", chunked(body), (400,)) for name, body in CHUNKS.items()),
)

ACCEPTED: Final = (
    Case("plain", get(), (200,)),
    Case("a blank line before", b"\r\n" + get(), (200,)),
    Case("no space behind the colon", hosted(b"Host:x"), (200,)),
    Case("white space around a value", hosted(b"Host: \t x \t"), (200,)),
    Case("an empty value", get(b"A:"), (200,)),
    Case("bytes in a value", get(b"A: \xc3\xa9\xff"), (200,)),
    Case("names of any case", hosted(b"hOsT: x"), (200,)),
    Case("port", hosted(b"Host: x:65535"), (200,)),
    Case("empty port", hosted(b"Host: x:"), (200,)),
    Case("IPv4", hosted(b"Host: 127.0.0.1:80"), (200,)),
    Case("IPv6", hosted(b"Host: [::1]:80"), (200,)),
    Case("absolute", get(path=b"http://x/api/time"), (200,)),
    Case("absolute, of another case", get(path=b"HTTPS://X/api/time"), (200,)),
    Case("absolute, with another Host", get(path=b"http://y.example:80/api/time"), (200,)),
    Case("absolute, without a path", get(path=b"http://x"), (200, 302)),
    Case("percent", get(path=b"/%61pi/time"), (200,)),
    Case("percent and more", get(path=b"/api/%C3%A9%00%FF"), (404,)),
    Case("two slashes later", get(path=b"/api//time"), (404,)),
    Case("an upgrade to something else", get(b"Upgrade: h2c", b"Connection: upgrade"), (200,)),
    Case("HTTP2-Settings", get(b"HTTP2-Settings: AAMAAABkAAQAAP__"), (200,)),
    Case("another Expect", get(b"Expect: nothing"), (200, 417)),
    Case("length zero", get(b"Content-Length: 0"), (200,)),
    Case("leading zeros", get(b"Content-Length: 003") + b"abc", (200,)),
    Case("a body of a GET", get(b"Content-Length: 44") + SMUGGLED[:44].ljust(44), (200,)),
    Case("chunks of a GET", get(b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n", (200,)),
    Case("chunked of any case", get(b"TRANSFER-ENCODING: \tChunked ") + b"0\r\n\r\n", (200,)),
    Case("a request in a body", post(b"Content-Length: 42", body=SMUGGLED[:42].ljust(42)), (400,)),
    Case(
        "a request in a chunk",
        chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
        (400,),
    ),
    Case("an extension", chunked(b'2;a="\\"b";c=d\r\n{}\r\n0;e\r\n\r\n'), (400,)),
    Case("a trailer", chunked(b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n"), (400,)),
    Case("zeros", chunked(b"00002\r\n{}\r\n000\r\n\r\n"), (400,)),
    Case("unread body", get(b"Content-Length: 3", method=b"POST") + b"abc", (405,)),
)
