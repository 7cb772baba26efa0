"""Buckets of JetStream, over a real NATS server."""

from __future__ import annotations

import pytest
import trio

from reileta.cluster.bus import Bus, BusMessage, BusUnavailable, Gap
from reileta.cluster.key_value import Bucket, BucketGone, Entry, KeyValue, WrongRevision
from tests.conftest import PATIENCE_S
from tests.nats_server import NatsServer
from tests.reileta.cluster.conftest import OpenBus, connected, disconnected

pytestmark = pytest.mark.slow

BUCKET = Bucket("nodes", republish="avr.test.kv")


@pytest.fixture
async def bucket(bus: Bus) -> KeyValue:
    bucket = KeyValue(bus, BUCKET)
    with trio.fail_after(PATIENCE_S):
        await bucket.make()
    return bucket


def now(bus: Bus) -> int:
    assert bus.connection is not None
    return bus.connection


async def test_an_entry_is_created_renewed_and_read(bus: Bus, bucket: KeyValue) -> None:
    assert await bucket.read("c_1") is None
    assert await bucket.read_all() == {}
    first = await bucket.write("c_1", b"a", revision=0, ttl_s=60, connection=now(bus))
    assert await bucket.read("c_1") == Entry(b"a", first)
    second = await bucket.write("c_1", b"b", revision=first, ttl_s=60, connection=now(bus))
    assert second > first
    other = await bucket.write("c_2", b"", revision=0, ttl_s=60, connection=now(bus))
    assert await bucket.read_all() == {"c_1": Entry(b"b", second), "c_2": Entry(b"", other)}
    below = await bucket.write("c_1.0", b"c", revision=0, ttl_s=60, connection=now(bus))
    await bucket.write("c_10.0", b"d", revision=0, ttl_s=60, connection=now(bus))
    assert await bucket.read_all("c_1") == {"c_1.0": Entry(b"c", below)}
    assert await bucket.read_all("c_3") == {}


async def test_a_deleted_entry_has_no_value_and_can_be_written_again(
    bus: Bus, bucket: KeyValue
) -> None:
    first = await bucket.write("c_1", b"a", revision=0, ttl_s=60, connection=now(bus))
    with pytest.raises(WrongRevision):
        await bucket.delete("c_1", revision=first + 1, connection=now(bus))
    await bucket.delete("c_1", revision=first, connection=now(bus))
    gone = await bucket.read("c_1")
    if gone is not None:  # else its time was over on a busy machine
        assert gone.value is None
        assert (await bucket.read_all()).get("c_1", gone).value is None
    with trio.fail_after(PATIENCE_S):
        while await bucket.read("c_1") is not None:
            await trio.sleep(0.05)
    assert await bucket.read_all() == {}
    await bucket.write("c_1", b"b", revision=0, ttl_s=60, connection=now(bus))


@pytest.mark.parametrize("revision", [0, 7])
async def test_a_write_with_another_revision_is_refused(
    bus: Bus, bucket: KeyValue, revision: int
) -> None:
    first = await bucket.write("c_1", b"a", revision=0, ttl_s=60, connection=now(bus))
    with pytest.raises(WrongRevision):
        await bucket.write("c_1", b"b", revision=revision, ttl_s=60, connection=now(bus))
    with pytest.raises(WrongRevision):
        await bucket.write("c_2", b"b", revision=first, ttl_s=60, connection=now(bus))
    assert await bucket.read_all() == {"c_1": Entry(b"a", first)}


async def test_accepted_writes_are_published(bus: Bus, bucket: KeyValue) -> None:
    async with bus.subscribe("avr.test.kv.>") as writes:
        first = await bucket.write("c_1", b"a", revision=0, ttl_s=60, connection=now(bus))
        with pytest.raises(WrongRevision):
            await bucket.write("c_1", b"refused", revision=0, ttl_s=60, connection=now(bus))
        await bucket.write("c_1", b"b", revision=first, ttl_s=60, connection=now(bus))
        items: list[BusMessage | Gap] = []
        with trio.fail_after(PATIENCE_S):
            while len(items) < 2:
                items += await writes.receive()
        assert [item.data for item in items if isinstance(item, BusMessage)] == [b"a", b"b"]
        message = items[0]
        assert isinstance(message, BusMessage)
        assert message.subject == "avr.test.kv.c_1"
        assert message.headers["Nats-Sequence"] == str(first)


async def test_an_entry_ends_with_its_time_and_can_be_made_again(
    bus: Bus, bucket: KeyValue
) -> None:
    await bucket.write("c_1", b"a", revision=0, ttl_s=1, connection=now(bus))
    with trio.fail_after(PATIENCE_S):
        # NATS removes it one to two seconds later, and reports nothing.
        while True:
            try:
                await bucket.write("c_1", b"b", revision=0, ttl_s=60, connection=now(bus))
                break
            except WrongRevision:
                await trio.sleep(0.05)
    entry = await bucket.read("c_1")
    assert entry is not None
    assert entry.value == b"b"


async def test_making_a_bucket_again_changes_nothing(bus: Bus, bucket: KeyValue) -> None:
    first = await bucket.write("c_1", b"a", revision=0, ttl_s=60, connection=now(bus))
    await bucket.make()
    await KeyValue(bus, Bucket("nodes", republish="avr.other.kv")).make()
    assert await bucket.read("c_1") == Entry(b"a", first)


async def test_a_bucket_that_does_not_exist_is_known_at_once(bus: Bus) -> None:
    bucket = KeyValue(bus, BUCKET)
    with trio.fail_after(PATIENCE_S):
        with pytest.raises(BucketGone):
            await bucket.read("c_1")
        with pytest.raises(BucketGone):
            await bucket.read_all()
        with pytest.raises(BucketGone):
            await bucket.write("c_1", b"", revision=0, ttl_s=60, connection=now(bus))


async def test_a_bucket_in_a_file_survives_kill_9(
    bus: Bus, bucket: KeyValue, nats: NatsServer
) -> None:
    first = await bucket.write("c_1", b"a", revision=0, ttl_s=60, connection=now(bus))
    await nats.kill()
    await disconnected(bus)
    await nats.start()
    connection = await connected(bus)
    assert await bucket.read("c_1") == Entry(b"a", first)
    await bucket.write("c_1", b"b", revision=first, ttl_s=60, connection=connection)


@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_server_without_its_data_has_no_bucket_until_it_is_made_again(
    bus: Bus, nats: NatsServer, in_memory: bool
) -> None:
    bucket = KeyValue(bus, Bucket("nodes", in_memory=in_memory))
    await bucket.make()
    before = now(bus)
    first = await bucket.write("c_1", b"a", revision=0, ttl_s=60, connection=before)
    await nats.kill()
    await disconnected(bus)
    if not in_memory:
        nats.forget()
    await nats.start()
    connection = await connected(bus)
    with pytest.raises(BucketGone):
        await bucket.read("c_1")
    await bucket.make()
    again = await bucket.write("c_2", b"another", revision=0, ttl_s=60, connection=connection)
    assert again == first, "revisions are used again"
    with pytest.raises(BusUnavailable):
        await bucket.write("c_2", b"old", revision=first, ttl_s=60, connection=before)


async def test_a_write_that_was_given_up_may_come_later(
    bus: Bus, bucket: KeyValue, nats: NatsServer, another_bus: OpenBus
) -> None:
    """The ghost of a node: it is the reason for rule 5 of the lease."""
    first = await bucket.write("c_1", b"a", revision=0, ttl_s=60, connection=now(bus))
    await nats.pause()
    with trio.move_on_after(0.5) as given_up:
        await bucket.write("c_1", b"ghost", revision=first, ttl_s=60, connection=now(bus))
    assert given_up.cancelled_caught
    nats.resume()
    async with another_bus() as other:
        await connected(other)
        with trio.fail_after(PATIENCE_S):
            entry = await KeyValue(other, BUCKET).read("c_1")
            while entry is None or entry.value != b"ghost":
                entry = await KeyValue(other, BUCKET).read("c_1")
    assert entry.revision > first


@pytest.mark.parametrize("key", ["", "a b", "a..b", "*", ">", "a.", "é"])
async def test_what_is_no_key_is_refused(bus: Bus, bucket: KeyValue, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        await bucket.write(key, b"", revision=0, ttl_s=60, connection=now(bus))
    with pytest.raises(ValueError, match="name"):
        KeyValue(bus, Bucket(key))
