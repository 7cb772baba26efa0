"""Resources over real sockets: watched through both APIs, and waited for."""

from __future__ import annotations

import json
from typing import Any

import httpx

from benchmarks.killable import event
from reileta.rules.resource.merge_patch import apply_object
from tests.conftest import PATIENCE_S
from tests.e2e.clients import connected
from tests.e2e.servers import Account, ServerHarness, running
from tests.e2e.test_sessions import get, line

Json = dict[str, Any]


async def ask(
    harness: ServerHarness, account: Account, method: str, path: str, body: object = None
) -> Json:
    """The body of a successful answer, or its error."""
    url = f"http://{harness.host}:{harness.port}{path}"
    headers = {"Authorization": f"Bearer {account.token}"}
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        answer: Json = (await client.request(method, url, json=body, headers=headers)).json()
    return answer


def watched(kind: str, number: int, type_: str = "document") -> str:
    message = event({})
    message["payload"] = {"kind": kind, "type": type_, "id": number}
    return json.dumps(message)


async def test_watchers_of_both_apis_keep_a_copy_and_the_next_in_line_takes_over(
    database_url: str,
) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account(), await harness.account()
        made = await ask(harness, ada, "POST", "/resource/document", {"title": "Door", "data": {}})
        number = made["resource"]["id"]
        path = f"/resource/document/{number}"
        name = (await ask(harness, bob, "GET", "/session"))["session"]["user"]["username"]
        await ask(harness, ada, "POST", f"{path}/share", {"user": name})
        async with connected(harness, bob) as player, line(harness, bob.token) as socket:
            assert (await get(socket))["payload"]["kind"] == "hello"
            answer = await player.ask("watch", {"type": "document", "id": number})
            copy = answer["data"]["view"]
            await socket.send_message(watched("watch", number))
            kinds = [(await get(socket))["type"] for _ in range(2)]
            assert kinds == ["ack", "event"]

            await ask(harness, ada, "POST", f"{path}/acquire")
            told = (await player.event("resource-updated"))["data"]
            assert told["holder"]["user"]["username"] != name
            queued = await ask(harness, bob, "POST", f"{path}/queue")
            assert queued["queue"] == {"position": 1, "offered_until": None}
            assert (await player.event("resource-queue"))["data"]["position"] == 1
            await ask(harness, ada, "PATCH", path, {"data": {"width": 91.5}})
            told = (await player.event("resource-updated"))["data"]
            assert told["from"] == copy["version"]
            copy = apply_object(copy, told["patch"])
            assert copy == (await ask(harness, bob, "GET", f"{path}/preview?data=true"))["resource"]

            await ask(harness, ada, "POST", f"{path}/release")
            offered = (await player.event("resource-queue"))["data"]
            assert offered["position"] == 1
            assert offered["offered_until"] is not None
            assert (await ask(harness, ada, "POST", f"{path}/acquire"))["error"]["code"] == 113
            acquired = await ask(harness, bob, "POST", f"{path}/acquire")
            assert acquired["resource"]["id"] == number
            assert (await player.event("resource-queue"))["data"]["reason"] == "acquired"

            seen = []
            while "acquired" not in seen:
                payload = (await get(socket))["payload"]
                seen.append(payload.get("reason") or payload["kind"])
            assert seen.count("resource-updated") >= 3

            answer = await player.ask("unwatch", {"type": "document", "id": number})
            assert answer["data"] == {"type": "document", "id": number}
            await socket.send_message(watched("watch", number + 1))
            while (refused := await get(socket))["payload"]["kind"] != "refused":
                pass
            assert refused["payload"]["error"]["code"] == 111
            assert (await player.ask("watch", {"type": "song", "id": 1}))["error"]["code"] == 112
            answer = await player.ask("watch", {"type": "document", "id": "1"})
            assert answer["error"]["code"] == 119
        assert harness.server.node.debug_counts()["waiting sessions"] == 0
