"""Candidates whose accounts end over a real server: no seat waits for a user who can't come."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests import logs
from tests.e2e.clients import Player, connected
from tests.e2e.processes import eventually
from tests.e2e.servers import Account, ServerHarness, running
from tests.e2e.test_administration import client_of, command, header

WAYS = ("deleted", "deleted by an admin", "suspended", "suspended by a command")


async def end(
    harness: ServerHarness, client: httpx.AsyncClient, way: str, user: Account, root: Account
) -> None:
    """The account ends in one of the ways."""
    path = f"/api/users/{user.id}"
    if way == "suspended by a command":
        assert await command(harness, "suspend", user.username) == 0
        return
    if way == "suspended":
        answer = await client.post(f"{path}/suspension", json={}, headers=header(root))
    else:
        by = user if way == "deleted" else root
        answer = await client.delete(path, headers=header(by))
    assert answer.status_code == 200, answer.text


async def entry_ended(player: Player, user: Account) -> str:
    """Why the entry of the user has ended, as the owner of the instance hears it."""
    frame = await player.until(
        lambda one: (
            one.get("command") == "instance-candidate"
            and one["data"]["user"].startswith(user.id)
            and one["data"].get("entry") is None
        )
    )
    return str(frame["data"]["reason"])


@pytest.mark.parametrize("way", WAYS)
async def test_a_candidate_whose_account_ends_leaves_the_queue(database_url: str, way: str) -> None:
    with logs.restored():
        async with (
            running(database_url, rate_limits="off") as harness,
            client_of(harness) as client,
        ):
            root = await harness.account("root", admin=True)
            owner, ann, bob = [await harness.account(name) for name in ("owner", "ann", "bob")]
            room = (await harness.instance(owner, capacity=1)).id
            async with connected(harness, owner) as inside:
                await inside.join(room)
                for user in (ann, bob):
                    path = f"/api/instances/{room}/candidate"
                    answer = await client.post(path, headers=header(user))
                    assert answer.json()["data"]["state"] == "waiting"
                await end(harness, client, way, ann, root)
                assert await entry_ended(inside, ann) == "withdrawn"
                answer = await client.get(f"/api/instances/{room}/queue", headers=header(owner))
                items = answer.json()["data"]["items"]
                assert [one["user"].split("@")[0] for one in items] == [bob.id]
                # The seat goes to the user who is still there.
                await inside.ask("instance-leave", {"instance": room})
            async with connected(harness, bob) as next_one:
                await next_one.join(room)


@pytest.mark.parametrize("way", WAYS)
async def test_a_seat_held_for_a_user_whose_account_ends_is_free_again(
    database_url: str, way: str
) -> None:
    with logs.restored():
        async with (
            running(database_url, rate_limits="off") as harness,
            client_of(harness) as client,
        ):
            root = await harness.account("root", admin=True)
            owner, ann, bob = [await harness.account(name) for name in ("owner", "ann", "bob")]
            room = (await harness.instance(owner, capacity=2)).id
            async with connected(harness, owner) as inside, connected(harness, bob) as visitor:
                await inside.join(room)
                path = f"/api/instances/{room}/candidate"
                answer = await client.post(path, headers=header(ann))
                assert answer.json()["data"]["state"] == "admitted"
                refused = await visitor.ask("instance-join", {"instance": room})
                assert refused["error"]["code"] == 48
                await end(harness, client, way, ann, root)
                assert await entry_ended(inside, ann) == "withdrawn"
                await visitor.join(room)


async def test_a_request_on_its_way_makes_no_candidate_of_a_deleted_user(database_url: str) -> None:
    with logs.restored():
        async with (
            running(database_url, rate_limits="off") as harness,
            client_of(harness) as client,
        ):
            owner, ann = [await harness.account(name) for name in ("owner", "ann")]
            room = (await harness.instance(owner, capacity=1)).id
            service = harness.registry.node.instance_service
            path = f"/api/instances/{room}/candidate"
            async with connected(harness, owner) as inside:
                await inside.join(room)
                asked = service.candidate
                deleted = trio.Event()

                async def late(*args: object) -> object:
                    """The request goes on only when its user has been deleted."""
                    await deleted.wait()
                    return await asked(*args)  # type: ignore[arg-type]

                service.candidate = late  # type: ignore[method-assign, assignment]
                answers: list[httpx.Response] = []

                async def request() -> None:
                    answers.append(await client.post(path, headers=header(ann)))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(request)
                    answer = await client.delete(f"/api/users/{ann.id}", headers=header(ann))
                    assert answer.status_code == 200
                    deleted.set()
                assert answers[0].status_code == 401

                async def empty() -> bool:
                    queue = await client.get(f"/api/instances/{room}/queue", headers=header(owner))
                    return bool(queue.json()["data"]["items"] == [])

                assert await eventually(empty)
