"""Frames that break RFC 6455, and messages that are too large or not UTF-8: each gets its close
code, and nobody else notices."""

from __future__ import annotations

import json
import random
import zlib

import trio

from tests.e2e.clients import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    RawClient,
    connected,
    frame,
    text,
    until,
)
from tests.e2e.hostile import BROKEN, LIMIT, deflated
from tests.e2e.servers import running


async def test_what_is_broken_gets_its_close_code_and_nobody_notices(database_url: str) -> None:
    async with running(database_url, message_limit_bytes=LIMIT) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = await harness.instance(ada)
        async with connected(harness, bob) as other:
            await other.join(place.id)
            for number, (name, (broken, code)) in enumerate(BROKEN.items()):
                async with RawClient.connected(harness) as client:
                    await client.enter(ada, place.id)
                    say = {"command": "instance-data", "subgroup": place.id, "data": number}
                    # What came before in the same packet counts; what comes after does not.
                    after = text(dict(say, data="after"))
                    await client.send(text(say) + broken + after)
                    closed = await client.close_frame()
                    assert closed.close_code == code, name
                    closed.payload[2:].decode("utf-8")
                    await client.ended()
                    assert client.buffer == b"", name
                assert (await other.hear())["data"] == number, name
            assert (await other.ask("ping"))["command"] == "ping"
            await until(lambda: len(harness.gateway) == 1)


async def test_a_character_may_be_split_across_fragments(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        async with RawClient.connected(harness) as client:
            await client.enter(ada)
            payload = json.dumps({"command": "ping", "state": "é😀"}, ensure_ascii=False).encode()
            for at in range(len(payload)):
                fin = at == len(payload) - 1
                await client.send(frame(CONT if at else TEXT, payload[at : at + 1], fin=fin))
                if at % 7 == 0:  # control frames may come between
                    await client.send(frame(PING, b"%d" % at))
                    while (one := await client.frame()).opcode != PONG:
                        pass
                    assert one.payload == b"%d" % at
            assert (await client.message("ping"))["state"] == "é😀"


async def test_a_message_as_large_as_may_be(database_url: str) -> None:
    async with running(database_url, message_limit_bytes=LIMIT) as harness:
        ada = await harness.account("ada")
        async with connected(harness, ada) as player:
            head = '{"command":"ping","state":"'
            await player.socket.send_message(head + "x" * (LIMIT - len(head) - 2) + '"}')
            assert len((await player.event_or_answer("ping"))["state"]) > LIMIT / 2


async def test_a_binary_message_is_answered_with_an_error(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        async with RawClient.connected(harness) as client:
            await client.enter(ada)
            for sent in (
                frame(BINARY, b'{"command":"ping"}'),
                frame(BINARY, b""),
                frame(BINARY, b"\xff", fin=False) + frame(CONT, b"\xfe"),
            ):
                await client.send(sent)
                while b'"code":119' not in (one := await client.frame()).payload:
                    assert one.opcode == TEXT
            await client.send(text({"command": "ping"}))
            await client.message("ping")


async def test_messages_before_a_goodbye_count(database_url: str) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = await harness.instance(ada)
        async with connected(harness, bob) as other, RawClient.connected(harness) as client:
            await other.join(place.id)
            await client.enter(ada, place.id)
            say = {"command": "instance-data", "subgroup": place.id, "data": "so long"}
            await client.send(text(say) + frame(CLOSE, b"\x0f\xa0bye") + text(dict(say, data="?")))
            assert (await other.hear())["data"] == "so long"
            closed = await client.close_frame()
            assert closed.payload == b"\x0f\xa0bye"
            await client.ended()
            assert client.buffer == b""
            await until(lambda: len(harness.gateway) == 1)


async def test_a_goodbye_without_a_code_is_echoed(database_url: str) -> None:
    async with running(database_url) as harness, RawClient.connected(harness) as client:
        await client.upgrade()
        await client.send(frame(CLOSE))
        assert (await client.close_frame()).payload == b""
        await client.ended()
        await until(lambda: len(harness.gateway) == 0)


def inflated(data: bytes, bits: int) -> bytes:
    """Decompressed by one who remembers `2 ** bits` bytes and no more."""
    inflater = zlib.decompressobj(wbits=-bits)
    data += b"\x00\x00\xff\xff"
    message = b""
    while data:
        message += inflater.decompress(data, 64)  # a little at a time, or it remembers it all
        data = inflater.unconsumed_tail
    return message


async def test_a_decompression_bomb_is_too_large(database_url: str) -> None:
    async with running(database_url, deflate=True) as harness:
        ada = await harness.account("ada")
        for bomb in (
            deflated(b" " * 50_000_000),
            frame(TEXT, b"{", fin=False) + frame(CONT, b"x" * 65_536),
            deflated(b" " * 60_000, fin=False)
            + frame(CONT, zlib.compress(b" " * 10_000, wbits=-12)),
        ):
            async with RawClient.connected(harness) as client:
                answer = await client.upgrade(
                    ada, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
                )
                assert "permessage-deflate" in answer.headers["sec-websocket-extensions"]
                await client.send(bomb)
                assert (await client.close_frame()).close_code == 1009
        async with RawClient.connected(harness) as client:
            await client.upgrade(ada, "Sec-WebSocket-Extensions: permessage-deflate")
            await client.send(frame(TEXT, b"\xff\xff\xff\xff", reserved=4))
            assert (await client.close_frame()).close_code == 1002


async def test_what_is_said_to_those_who_compress_and_those_who_do_not(database_url: str) -> None:
    async with running(database_url, deflate=True) as harness:
        accounts = [await harness.account() for _ in range(5)]
        place = await harness.instance(accounts[0])
        offers = (
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits=9",
            None,
        )
        async with connected(harness, accounts[4]) as speaker, trio.open_nursery() as nursery:
            listeners: list[tuple[RawClient, int | None]] = []
            await speaker.join(place.id)

            async def listen(index: int, offer: str | None) -> None:
                async with RawClient.connected(harness) as client:
                    lines = () if offer is None else (f"Sec-WebSocket-Extensions: {offer}",)
                    answer = await client.upgrade(accounts[index], *lines)
                    said = answer.headers.get("sec-websocket-extensions", "")
                    assert ("permessage-deflate" in said) == (offer is not None)
                    bits = 9 if "server_max_window_bits=9" in said else 15
                    join = {"command": "instance-join", "data": {"instance": place.id}}
                    listeners.append((client, bits if offer else None))
                    await client.send(text(join))
                    await trio.sleep_forever()

            for index, offer in enumerate(offers):
                nursery.start_soon(listen, index, offer)
            for _ in offers:
                await speaker.event("instance-joined")
            # Repeats far apart: a decompressor with a small window could not follow a large one.
            block = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=3_000))
            await speaker.say(place.id, {"big": block + block, "é": 1})
            await speaker.say(place.id, "small")
            packed = set()
            for client, bits in listeners:
                got: list[object] = []
                while len(got) < 2:
                    one = await client.frame()
                    payload = one.payload
                    if one.reserved:
                        assert bits is not None, "compressed for one who never asked for it"
                        payload = inflated(payload, bits)
                        packed.add(one.payload)
                    message = json.loads(payload)
                    if message["command"] == "instance-data":
                        got.append(message["data"]["data"])
                assert got == [{"big": block + block, "é": 1}, "small"]
            assert packed, "nothing was compressed"
            nursery.cancel_scope.cancel()
