"""Nodes, places and fenced writes in the database."""

from __future__ import annotations

import pytest
import trio

from reileta.errors import InstanceNotFound
from reileta.rules.cluster.lease import DatabaseMark
from reileta.rules.cluster.placement import Place, Tenure
from reileta.store import Store
from reileta.store.cluster_leases import (
    BUMP,
    FENCED_MS,
    ClusterLeases,
    Fenced,
    FencedWrite,
    NodeFenced,
    RowsSeen,
    hold,
)
from reileta.store.database import ConstraintBroken
from reileta.store.database_time import database_time
from tests.reileta.store.records import held_up

A, B = "c_a", "c_b"


@pytest.fixture
async def leases(store: Store) -> ClusterLeases:
    """With two nodes, `A` and `B`."""
    leases = ClusterLeases(store.database)
    for node in (A, B):
        await leases.register(node, name=node, roles={"reil", "ins"}, version="0.1.0")
    return leases


async def instance(store: Store, name: str = "room") -> str:
    made = await store.instances.create(
        name=name,
        title=None,
        description=None,
        world="w_1",
        owner="u_1",
        capacity=8,
        tags=frozenset(),
    )
    return made.id


async def hosted(store: Store, leases: ClusterLeases, node: str = A) -> Tenure:
    place = await leases.claim(await instance(store), node)
    return Tenure(place.instance, node, place.epoch)


def ban(tenure: Tenure, user: str) -> FencedWrite:
    write = FencedWrite(tenure)
    write.add(
        "INSERT INTO bans (instance_id, user_ref, by_ref, created_at) "
        "SELECT {}, {}, 'u_1', 0 FROM held",
        tenure.instance,
        user,
    )
    return write


async def banned(store: Store, tenure: Tenure) -> list[str]:
    return [one.user for one in await store.bans.of(tenure.instance)]


# Nodes


async def test_a_renewal_changes_the_beat_and_shows_all_nodes(leases: ClusterLeases) -> None:
    await leases.renew(A, nats_ok=True)
    await leases.renew(A, nats_ok=False)
    assert await leases.renew(B, nats_ok=True) == RowsSeen(
        {A: DatabaseMark(2, nats_ok=False), B: DatabaseMark(0, nats_ok=False)},
        asked_to_yield=False,
    )


async def test_registering_again_changes_nothing(leases: ClusterLeases) -> None:
    await leases.renew(A, nats_ok=True)
    await leases.register(A, name=A, roles=("ins",), version="0.1.0")
    seen = await leases.renew(B, nats_ok=True)
    assert seen is not None
    assert seen.rows[A] == DatabaseMark(1, nats_ok=True)


async def test_a_node_that_is_not_registered_is_refused(leases: ClusterLeases) -> None:
    assert await leases.renew("c_other", nats_ok=True) is None
    with pytest.raises(NodeFenced):
        await leases.claim("i_any", "c_other")


async def test_a_fenced_node_is_refused_and_seen_no_more(
    store: Store, leases: ClusterLeases
) -> None:
    tenure = await hosted(store, leases)
    await leases.renew(A, nats_ok=True)
    assert await leases.fence(A, 1, by=B) == [tenure.instance]
    assert await leases.renew(A, nats_ok=True) is None
    seen = await leases.renew(B, nats_ok=True)
    assert seen is not None
    assert list(seen.rows) == [B]
    assert await leases.place(tenure.instance) == Place(tenure.instance, None, tenure.epoch + 1)
    with pytest.raises(NodeFenced):
        await leases.claim(tenure.instance, A)


async def test_a_fence_expects_the_beat_that_was_seen(store: Store, leases: ClusterLeases) -> None:
    tenure = await hosted(store, leases)
    await leases.renew(A, nats_ok=True)
    assert await leases.fence(A, 0, by=B) is None
    assert await leases.renew(A, nats_ok=True) is not None
    assert (await leases.place(tenure.instance)).node == A


async def test_one_of_two_takers_wins(store: Store, leases: ClusterLeases) -> None:
    tenure = await hosted(store, leases)
    results: list[list[str] | None] = []

    async def take(by: str) -> None:
        results.append(await leases.fence(A, 0, by=by))

    async with trio.open_nursery() as nursery:
        for taker in (B, "c_c"):
            nursery.start_soon(take, taker)
    assert sorted(results, key=str) == sorted([[tenure.instance], None], key=str)
    assert (await leases.place(tenure.instance)).epoch == tenure.epoch + 1


async def test_a_renewal_that_waits_for_a_fence_is_refused(
    store: Store, leases: ClusterLeases
) -> None:
    renewed: list[RowsSeen | None] = []

    async def renew() -> None:
        renewed.append(await leases.renew(A, nats_ok=True))

    async with store.database.connection() as queries:
        await queries.execute("BEGIN")
        await queries.execute("UPDATE nodes SET fenced_at = 1, fenced_by = $2 WHERE id = $1", A, B)
        async with held_up(store, renew):
            await queries.execute("COMMIT")
    assert renewed == [None]


async def test_a_node_gives_back_what_it_has(store: Store, leases: ClusterLeases) -> None:
    tenure = await hosted(store, leases)
    assert await leases.give_back(A) == [tenure.instance]
    assert await leases.renew(A, nats_ok=True) is None
    assert (await leases.claim(tenure.instance, B)).epoch == tenure.epoch + 2


async def test_nobody_waits_for_a_node_that_has_stopped(
    store: Store, leases: ClusterLeases
) -> None:
    tenure = await hosted(store, leases)
    assert await leases.withdraw(A) == [tenure.instance]
    seen = await leases.renew(B, nats_ok=True)
    assert seen is not None
    assert list(seen.rows) == [B]
    assert await leases.renew(A, nats_ok=True) is None


async def test_a_node_finds_that_it_is_asked_to_yield(leases: ClusterLeases) -> None:
    assert await leases.ask_to_yield(A)
    assert not await leases.ask_to_yield("c_other")
    for node, asked in ((A, True), (B, False)):
        seen = await leases.renew(node, nats_ok=True)
        assert seen is not None
        assert seen.asked_to_yield is asked


async def test_rows_of_fallen_nodes_are_removed_after_a_while(
    store: Store, leases: ClusterLeases
) -> None:
    await leases.give_back(A)
    assert await leases.remove_fallen() == 0
    await store.database.execute(
        "UPDATE nodes SET fenced_at = $2 WHERE id = $1",
        A,
        await database_time(store.database) - FENCED_MS - 1,
    )
    assert await leases.remove_fallen() == 1
    assert await leases.renew(B, nats_ok=True) is not None


async def test_after_a_restore_no_node_goes_on_and_no_epoch_comes_again(
    store: Store, leases: ClusterLeases
) -> None:
    tenure = await hosted(store, leases)
    await leases.bump()
    assert await leases.renew(A, nats_ok=True) is None
    assert await leases.place(tenure.instance) == Place(tenure.instance, None, tenure.epoch + BUMP)


# Places


async def test_an_instance_has_one_host(store: Store, leases: ClusterLeases) -> None:
    id_ = await instance(store)
    assert await leases.place(id_) == Place(id_, None, 0)
    assert await leases.claim(id_, A) == Place(id_, A, 1)
    assert await leases.claim(id_, B) == Place(id_, A, 1)
    assert await leases.claim(id_, A) == Place(id_, A, 1), "the first answer may have been lost"
    assert await leases.places_of(A) == [Tenure(id_, A, 1)]
    assert await leases.places_of(B) == []


async def test_of_many_claims_at_once_one_wins(store: Store, leases: ClusterLeases) -> None:
    id_ = await instance(store)
    places: set[Place] = set()

    async def claim(node: str) -> None:
        places.add(await leases.claim(id_, node))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(claim, A)
            nursery.start_soon(claim, B)
    assert len(places) == 1
    assert places.pop().epoch == 1


async def test_the_epoch_grows_with_each_change_of_the_host(
    store: Store, leases: ClusterLeases
) -> None:
    tenure = await hosted(store, leases)
    assert await leases.leave(tenure)
    assert not await leases.leave(tenure)
    again = await leases.claim(tenure.instance, B)
    assert again.epoch > tenure.epoch + 1
    moved = await leases.move(Tenure(again.instance, B, again.epoch), A)
    assert moved == Tenure(again.instance, A, again.epoch + 1)


async def test_an_instance_that_is_gone_is_not_claimed(store: Store, leases: ClusterLeases) -> None:
    tenure = await hosted(store, leases)
    await store.instances.delete(tenure.instance)
    with pytest.raises(InstanceNotFound):
        await leases.claim(tenure.instance, A)
    assert await leases.place(tenure.instance) == Place(tenure.instance, None, 0)


async def test_a_repeated_move_finds_that_it_is_done(store: Store, leases: ClusterLeases) -> None:
    """The answer to the first was lost."""
    tenure = await hosted(store, leases)
    moved = await leases.move(tenure, B)
    assert moved == Tenure(tenure.instance, B, tenure.epoch + 1)
    assert await leases.move(tenure, B) == moved
    with pytest.raises(Fenced):
        await leases.move(tenure, A)
    await leases.leave(moved)
    with pytest.raises(Fenced):
        await leases.move(tenure, B)


async def test_a_move_needs_the_present_tenure_and_a_node_that_lives(
    store: Store, leases: ClusterLeases
) -> None:
    tenure = await hosted(store, leases)
    with pytest.raises(Fenced):
        await leases.move(Tenure(tenure.instance, A, tenure.epoch + 1), B)
    await leases.give_back(B)
    with pytest.raises(NodeFenced):
        await leases.move(tenure, B)
    assert (await leases.place(tenure.instance)).node == A


async def test_a_fence_waits_for_a_claim_and_frees_it(store: Store, leases: ClusterLeases) -> None:
    """Else the instance would belong to a node that has fallen, for ever."""
    id_ = await instance(store)
    freed: list[list[str] | None] = []

    async def fence() -> None:
        freed.append(await leases.fence(A, 0, by=B))

    async with store.database.connection() as queries:
        await queries.execute("BEGIN")
        await ClusterLeases(queries).claim(id_, A)
        async with held_up(store, fence):
            await queries.execute("COMMIT")
    assert freed == [[id_]]
    assert (await leases.place(id_)).node is None


# Fenced writes


async def test_a_host_writes(store: Store, leases: ClusterLeases) -> None:
    tenure = await hosted(store, leases)
    write = ban(tenure, "u_2")
    write.add("UPDATE instances SET capacity = {} FROM held WHERE id = {}", 5, tenure.instance)
    write.add(
        "DELETE FROM bans USING held WHERE instance_id = {} AND user_ref = {}",
        tenure.instance,
        "u_nobody",
    )
    assert await write.run(store.database) == [1, 1, 0]
    assert await banned(store, tenure) == ["u_2"]
    record = await store.instances.get(tenure.instance)
    assert record is not None
    assert record.capacity == 5


@pytest.mark.parametrize("change", ["fence", "leave", "move", "delete", "bump"])
async def test_a_former_host_does_not_write(
    store: Store, leases: ClusterLeases, change: str
) -> None:
    tenure = await hosted(store, leases)
    match change:
        case "fence":
            await leases.fence(A, 0, by=B)
        case "leave":
            await leases.leave(tenure)
        case "move":
            await leases.move(tenure, B)
        case "delete":
            await store.instances.delete(tenure.instance)
        case _:
            await leases.bump()
    with pytest.raises(Fenced):
        await ban(tenure, "u_2").run(store.database)
    async with store.database.transaction() as transaction:
        with pytest.raises(Fenced):
            await hold(transaction, tenure)
    assert await banned(store, tenure) == []


async def test_a_host_that_comes_back_does_not_write_by_its_first_tenure(
    store: Store, leases: ClusterLeases
) -> None:
    tenure = await hosted(store, leases)
    await leases.leave(tenure)
    assert (await leases.claim(tenure.instance, A)).node == A
    with pytest.raises(Fenced):
        await ban(tenure, "u_2").run(store.database)


async def test_a_change_that_is_refused_writes_nothing(store: Store, leases: ClusterLeases) -> None:
    tenure = await hosted(store, leases)
    write = ban(tenure, "u_2")
    write.add(
        "INSERT INTO moderators (instance_id, user_ref, by_ref, created_at) "
        "SELECT 'i_none', 'u_3', 'u_1', 0 FROM held"
    )
    with pytest.raises(ConstraintBroken):
        await write.run(store.database)
    assert await banned(store, tenure) == []


@pytest.mark.parametrize("way", ["statement", "transaction"])
async def test_a_fence_waits_for_a_write_which_the_next_host_then_finds(
    store: Store, leases: ClusterLeases, way: str
) -> None:
    tenure = await hosted(store, leases)

    async def fence() -> None:
        await leases.fence(A, 0, by=B)

    async with store.database.connection() as queries:
        await queries.execute("BEGIN")
        if way == "statement":
            await ban(tenure, "u_2").run(queries)
        else:
            await hold(queries, tenure)
            await queries.execute(
                "INSERT INTO bans (instance_id, user_ref, by_ref, created_at) "
                "VALUES ($1, 'u_2', 'u_1', 0)",
                tenure.instance,
            )
        async with held_up(store, fence):
            await queries.execute("COMMIT")
    assert (await leases.claim(tenure.instance, B)).node == B
    assert await banned(store, tenure) == ["u_2"]


async def test_a_write_that_waits_for_a_fence_has_no_effect(
    store: Store, leases: ClusterLeases
) -> None:
    tenure = await hosted(store, leases)

    async def write() -> None:
        with pytest.raises(Fenced):
            await ban(tenure, "u_2").run(store.database)

    async with store.database.connection() as queries:
        await queries.execute("BEGIN")
        await queries.execute("UPDATE places SET node = NULL, epoch = epoch + 1 WHERE node = $1", A)
        async with held_up(store, write):
            await queries.execute("COMMIT")
    assert await banned(store, tenure) == []


def test_a_write_that_does_not_ask_for_its_tenure_is_a_defect() -> None:
    with pytest.raises(ValueError, match="held"):
        FencedWrite(Tenure("i_1", A, 1)).add("DELETE FROM bans")


async def test_a_gateway_hosts_what_lives_on_the_nodes_that_are_linked_to_it(
    store: Store, leases: ClusterLeases
) -> None:
    gateway = "c_gateway"
    await leases.register(gateway, name=gateway, roles={"reil"}, version="0.1.0")
    owner = await person(store)
    node = await store.host_nodes.create(
        title="Attic",
        owner=owner,
        kind="hosted",
        region=None,
        capacity=10,
        direct=None,
        token_hash=b"token",
    )
    made = await store.instances.create(
        name="attic",
        title=None,
        description=None,
        world="w_1",
        owner=owner,
        capacity=8,
        tags=frozenset(),
        node=node.id,
    )
    assert (await leases.place(made.id)).linked is None
    with pytest.raises(NodeFenced):
        await leases.claim(made.id, gateway)
    linked = await store.host_nodes.link(node.id, b"token", server=gateway, version="")
    assert linked is not None
    assert (await leases.place(made.id)).linked == gateway
    # Elsewhere first, then it follows the link.
    place = await leases.claim(made.id, A)
    moved = await leases.move(Tenure(made.id, A, place.epoch), gateway)
    assert (await leases.place(made.id)).node == gateway
    assert await leases.leave(moved)
    assert (await leases.claim(made.id, gateway)).node == gateway
    # Only that, and only while the link is there.
    with pytest.raises(NodeFenced):
        await leases.claim(await instance(store), gateway)
    assert await leases.fence(gateway, 0, by=A) == [made.id]
    place = await leases.place(made.id)
    assert (place.node, place.linked) == (None, None)
    # A process that fell says again that it has the link.
    assert await store.host_nodes.seen(node.id, b"token", link=linked.link, server=B)
    assert (await leases.place(made.id)).linked == B


async def test_a_fence_does_not_wait_for_a_node_that_somebody_has_locked(
    store: Store, leases: ClusterLeases
) -> None:
    owner = await person(store)
    node = await store.host_nodes.create(
        title="Attic",
        owner=owner,
        kind="hosted",
        region=None,
        capacity=10,
        direct=None,
        token_hash=b"token",
    )
    await store.host_nodes.link(node.id, b"token", server=A, version="")
    async with store.database.transaction() as transaction:
        await transaction.fetch("SELECT 1 FROM hosts WHERE id = $1 FOR UPDATE", node.id)
        assert await leases.fence(A, 0, by=B) == []


async def person(store: Store) -> str:
    user = await store.users.create(username="ada", password_hash="x", displayname="Ada")
    return user.id
