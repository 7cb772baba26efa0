"""What an instance publishes; who is told is tested in test_hub.py."""

from __future__ import annotations

from typing import cast

import msgspec

from actors.delivery.sink import Sink
from actors.directory import Directory, Occupancy
from actors.hub.messages import HubMessage, Publish
from actors.instance.publisher import Publisher
from actors.runtime.mailbox import Ref
from actors.server import LiveServer
from reileta.observability.metrics import Metrics
from reileta.rules.identity import Viewer
from reileta.rules.instance.instance import Instance
from tests.actors.probe import full_actor
from tests.actors.sinks import FakeSink
from tests.reileta.instances import HOME, filled, room, user, visitor


class Hub:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Publish] = []

    def tell(self, message: Publish) -> None:
        self.told.append(message)


def publisher(rules: Instance, hub: Hub | Ref[HubMessage], directory: Directory) -> Publisher:
    return Publisher(
        rules,
        hub=cast(Ref[HubMessage], hub),
        directory=directory,
        server=LiveServer(HOME, secure=True, public_key=""),
    )


def viewer(number: int, *, admin: bool = False) -> Viewer:
    return Viewer(user(number).partition("@")[0], admin)


def test_a_public_instance_is_everybodys_to_see() -> None:
    rules, hub, metrics = room(), Hub(), Metrics()
    directory = Directory(metrics)
    sink: Sink = FakeSink()
    directory.occupy(rules.record.id, Occupancy(2, 1, user(1)))
    one = publisher(rules, hub, directory)
    one.publish("instance-left", b'{"x":1}', informed=(sink,))
    one.publish_object()
    left, update = hub.told
    assert (left.event, left.id, left.inside, left.informed) == (
        "instance-left",
        rules.record.id,
        rules.record.id,
        frozenset({sink}),
    )
    assert left.render(viewer(9)) == b'{"x":1}'
    assert (update.event, update.inside, update.informed) == ("update-instance", None, frozenset())
    directory.occupy(rules.record.id, None)  # it tells what was when it was published
    data = msgspec.json.decode(update.render(viewer(9)) or b"")
    assert (data["connected"], data["queued"], data["master"]) == (2, 1, user(1))
    assert (data["server"], data["secure"]) == (HOME, True)


def test_another_is_shown_to_the_owner_to_admins_and_to_those_inside() -> None:
    rules, hub, metrics = room(access="avr:invite_plus"), Hub(), Metrics()
    filled(rules, 0)
    rules.admit(visitor(0), user(1), 1)
    filled(rules, 1, now=2)
    publisher(rules, hub, Directory(metrics)).publish_object()
    (update,) = hub.told
    assert update.render(viewer(0)) is not None
    assert update.render(viewer(1)) is not None
    assert update.render(viewer(2)) is None
    assert update.render(viewer(2, admin=True)) is not None


async def test_a_publication_that_a_full_hub_refuses_is_counted_once() -> None:
    metrics = Metrics()
    async with full_actor(metrics) as hub:
        publisher(room(), hub, Directory(metrics)).publish_object()
    assert metrics.mailbox_refused == 1
