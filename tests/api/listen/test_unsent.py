"""What may wait for clients to read it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from quart.wrappers.response import DataBody

from api.listen.byte_stream import ClientGone
from api.listen.unsent import ADDRESS_BYTES, ADDRESS_STREAMS, TOTAL_BYTES, Unsent

FILE = DataBody(b"")


def test_one_address_has_no_more_than_its_share() -> None:
    unsent = Unsent()
    with unsent.holding("a", ADDRESS_BYTES):
        assert not unsent.has_room("a")
        assert not unsent.may_send("a", b"x")
        with pytest.raises(ClientGone), unsent.holding("a", 1):
            pass
        assert unsent.has_room("b")
        with unsent.holding("b", ADDRESS_BYTES):
            assert unsent.bytes == 2 * ADDRESS_BYTES
    assert unsent.has_room("a")
    assert unsent.bytes == 0


def test_all_addresses_together_have_a_bound() -> None:
    unsent = Unsent()
    with ExitStack() as held:
        for number in range(TOTAL_BYTES // ADDRESS_BYTES):
            held.enter_context(unsent.holding(str(number), ADDRESS_BYTES))
        assert not unsent.has_room("another")
        with pytest.raises(ClientGone), unsent.holding("another", 1):
            pass
    assert unsent.bytes == 0


def test_what_fails_while_it_is_sent_is_given_back() -> None:
    unsent = Unsent()
    with pytest.raises(OSError), unsent.holding("a", 5), unsent.streaming("a"):
        raise OSError
    assert unsent.bytes == 0
    assert unsent.may_send("a", FILE)


def test_so_many_answers_are_read_from_files_at_once() -> None:
    unsent = Unsent()
    streams = [unsent.streaming("a") for _ in range(ADDRESS_STREAMS)]
    for one in streams:
        assert unsent.may_send("a", FILE)
        one.__enter__()
    assert not unsent.may_send("a", FILE)
    assert unsent.may_send("b", FILE)
    streams[0].__exit__(None, None, None)
    assert unsent.may_send("a", FILE)
