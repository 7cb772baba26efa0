"""`/api/users/:id/follows` and `/followers`; more of it is tested with a whole server."""

from __future__ import annotations

from tests.api.clients import Client
from tests.api.fakes import ADDRESS


async def test_two_who_follow_each_other_are_friends(ada: Client, bob: Client) -> None:
    made = (await ada.ask("PUT", "/api/users/@me/follows/bob")).data
    assert (made["user"], made["isFriend"]) == (f"{bob.me['id']}@{ADDRESS}", False)
    assert (await bob.ask("PUT", "/api/users/@me/follows/ada")).data["isFriend"] is True
    listed = (await ada.get("/api/users/@me/follows")).data
    assert [one["isFriend"] for one in listed["items"]] == [True]
    assert (await ada.delete("/api/users/@me/follows/bob")).data == {}
    assert (await ada.get("/api/users/@me/followers")).data["items"][0]["isFriend"] is False


async def test_whom_one_follows_is_its_own_matter(ada: Client, bob: Client, admin: Client) -> None:
    path = f"/api/users/{ada.me['id']}"
    for suffix in ("follows", "followers"):
        answer = await bob.get(f"{path}/{suffix}")
        assert (answer.status, answer.code) == (403, 18)
        assert (await admin.get(f"{path}/{suffix}")).data["total"] == 0
    for method in ("PUT", "DELETE"):
        answer = await bob.ask(method, f"{path}/follows/bob")
        assert (answer.status, answer.code) == (403, 12)
