"""`/api/instances/:id/queue` and `/candidate`: what is shown of the queue, and to whom."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from actors.instance.messages import QueueSnapshot
from reileta.rules.identity import Principal
from reileta.rules.instance.candidates import Entry
from tests.api.clients import Client
from tests.api.fakes import FakeNode

LINE = tuple(Entry(f"u_{number}@x.org", "waiting", number, 5, None) for number in range(1, 4))


@dataclass
class FakeInstanceService:
    """Answers like `InstanceService`, and keeps the requests in `asked`."""

    state: QueueSnapshot = field(default_factory=QueueSnapshot)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    async def queue(self, instance_id: str, principal: Principal | None) -> QueueSnapshot:
        return self.state

    async def candidate(self, instance_id: str, principal: Principal) -> Entry:
        self.asked.append(("candidate", None))
        return LINE[0]

    async def admit(self, instance_id: str, principal: Principal, user: str) -> Entry:
        self.asked.append(("admit", user))
        return LINE[1]

    async def withdraw(self, instance_id: str, principal: Principal) -> None:
        self.asked.append(("withdraw", None))

    async def refuse(self, instance_id: str, principal: Principal, user: str) -> None:
        self.asked.append(("refuse", user))


@pytest.fixture
def instance_service(node: FakeNode) -> FakeInstanceService:
    node.instance_service = FakeInstanceService()
    instance_service: FakeInstanceService = node.instance_service
    return instance_service


async def opened(client: Client) -> str:
    world = (await client.put("/api/worlds", {"title": "Harbour"})).data["id"]
    id_ = (await client.put("/api/instances", {"world": world})).data["id"]
    return f"/api/instances/{id_}"


async def test_one_sees_as_much_of_the_queue_as_it_may(
    instance_service: FakeInstanceService, ada: Client, anyone: Client
) -> None:
    path = await opened(ada)
    instance_service.state = QueueSnapshot(3)
    assert (await anyone.get(f"{path}/queue")).data == {"queued": 3}
    instance_service.state = QueueSnapshot(3, LINE[1], LINE)
    seen = (await ada.get(f"{path}/queue?limit=1&offset=2")).data
    assert seen["entry"]["position"] == 2
    assert [one["position"] for one in seen["items"]] == [3]
    assert (seen["total"], seen["limit"], seen["offset"]) == (3, 1, 2)


async def test_without_a_user_it_is_about_the_asker(
    instance_service: FakeInstanceService, ada: Client
) -> None:
    path = f"{await opened(ada)}/candidate"
    assert (await ada.ask("POST", path)).data["position"] == 1
    assert (await ada.post(path, {})).data["position"] == 1
    assert (await ada.post(path, {"user": "bob"})).data["position"] == 2
    assert (await ada.delete(path)).data == {}
    assert (await ada.delete(f"{path}?user=bob")).data == {}
    assert instance_service.asked == [
        ("candidate", None),
        ("candidate", None),
        ("admit", "bob"),
        ("withdraw", None),
        ("refuse", "bob"),
    ]


async def test_it_needs_a_credential_and_an_instance(
    instance_service: FakeInstanceService, ada: Client, anyone: Client
) -> None:
    path = f"{await opened(ada)}/candidate"
    for answer in (await anyone.post(path, {}), await anyone.delete(path)):
        assert (answer.status, answer.code) == (401, 3)
    answer = await ada.post("/api/instances/nowhere/candidate", {})
    assert (answer.status, answer.code) == (404, 36)
    answer = await ada.post(path, {"user": 5})
    assert (answer.status, answer.code, answer.fields) == (400, 33, {"user"})
