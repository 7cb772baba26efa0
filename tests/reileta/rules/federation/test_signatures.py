from __future__ import annotations

from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from reileta.rules.federation.signatures import (
    CHAIN_LENGTH,
    Link,
    challenge_bytes,
    encode,
    follows_chain,
    is_public_key,
    key_bytes,
    verify,
)

HERE = "play.example.org"
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in range(12)]
PUBLIC = [encode(key.public_key().public_bytes_raw()) for key in KEYS]


def link(old: int, new: int, *, address: str = HERE, since: int = 5) -> Link:
    data = key_bytes(address, PUBLIC[old], PUBLIC[new], since)
    return Link(PUBLIC[new], since, encode(KEYS[old].sign(data)))


def chain(*numbers: int) -> list[Link]:
    """The links from the first key to the last one, newest first."""
    pairs = pairwise(numbers)
    return [link(old, new) for old, new in pairs][::-1]


def test_the_signed_bytes_are_lines() -> None:
    assert challenge_bytes("a.example", "b.example:1", "id", "nonce", 7) == (
        b"avr-challenge-1\na.example\nb.example:1\nid\nnonce\n7"
    )
    assert key_bytes("a.example", "old", "new", 7) == b"avr-key-1\na.example\nold\nnew\n7"


@pytest.mark.parametrize("place", range(4))
def test_a_value_can_not_reach_into_the_next_line(place: int) -> None:
    values = ["a", "b", "id", "nonce"]
    values[place] += "\nx"
    with pytest.raises(ValueError, match="line breaks"):
        challenge_bytes(values[0], values[1], values[2], values[3], 7)


def test_a_signature_holds_for_its_key_and_data_only() -> None:
    signature = encode(KEYS[0].sign(b"data"))
    assert verify(PUBLIC[0], b"data", signature)
    assert not verify(PUBLIC[1], b"data", signature)
    assert not verify(PUBLIC[0], b"date", signature)
    assert not verify(PUBLIC[0], b"data", encode(KEYS[0].sign(b"date")))


@pytest.mark.parametrize("spell", [lambda text: text + "=", lambda text: text + "==", str.swapcase])
def test_a_key_has_one_spelling(spell: object) -> None:
    assert callable(spell)
    signature = encode(KEYS[0].sign(b"data"))
    assert not verify(spell(PUBLIC[0]), b"data", signature)
    assert not verify(PUBLIC[0], b"data", spell(signature))


def test_unused_bits_of_a_key_are_zero() -> None:
    last = PUBLIC[0][-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = PUBLIC[0][:-1] + alphabet[alphabet.index(last) + 1]
    assert is_public_key(PUBLIC[0])
    assert not is_public_key(other)


@given(st.text(), st.binary(), st.text())
def test_no_text_is_an_error(key: str, data: bytes, signature: str) -> None:
    assert not verify(key, data, signature)
    assert not verify(PUBLIC[0], data, signature)


def test_a_key_follows_from_each_key_before_it() -> None:
    keys = chain(0, 1, 2, 3)
    assert [follows_chain(PUBLIC[pin], keys, HERE) for pin in range(5)] == [
        *(True, True, True, True),
        False,
    ]


def test_nothing_follows_from_an_empty_chain() -> None:
    assert not follows_chain(PUBLIC[0], [], HERE)


def test_a_chain_is_bounded() -> None:
    assert follows_chain(PUBLIC[0], chain(*range(CHAIN_LENGTH + 1)), HERE)
    assert not follows_chain(PUBLIC[0], chain(*range(CHAIN_LENGTH + 2)), HERE)


@pytest.mark.parametrize(
    "keys",
    [
        chain(0, 1, 2)[::-1],
        [*chain(1, 2), *chain(0, 3)],
        chain(4, 1, 2),
        [link(1, 2, address="evil.example"), link(0, 1)],
        [link(1, 2, address=f"{HERE}:8443"), link(0, 1)],
        [Link(PUBLIC[2], 6, link(1, 2).by), link(0, 1)],
        [Link(PUBLIC[3], 5, link(1, 2).by), link(0, 1)],
        [Link(PUBLIC[2], 5, link(1, 2).by[:-1]), link(0, 1)],
        [Link(PUBLIC[2], 5, ""), link(0, 1)],
        [Link(f"{PUBLIC[2]}\n5", 5, link(1, 2).by), link(0, 1)],
        [link(2, 2)],
    ],
)
def test_a_chain_with_a_broken_link_proves_nothing(keys: list[Link]) -> None:
    assert not follows_chain(PUBLIC[0], keys, HERE)


def test_links_before_the_pinned_key_do_not_matter() -> None:
    assert follows_chain(PUBLIC[1], [link(1, 2), Link(PUBLIC[1], 1, "lost")], HERE)


# Points of small order ----------------------------------------------------------------------------

P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493
Point = tuple[int, int]


def point_at(y: int) -> Point | None:
    """A point of the curve with that y, if there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    for root in (x, x * pow(2, (P - 1) // 4, P) % P):
        if root * root % P == square:
            return root, y
    return None


def added(one: Point, other: Point) -> Point:
    product = D * one[0] * other[0] * one[1] * other[1] % P
    return (
        (one[0] * other[1] + other[0] * one[1]) * pow(1 + product, P - 2, P) % P,
        (one[1] * other[1] + one[0] * other[0]) * pow(1 - product, P - 2, P) % P,
    )


def times(number: int, point: Point) -> Point:
    total = (0, 1)
    while number:
        if number & 1:
            total = added(total, point)
        point = added(point, point)
        number >>= 1
    return total


def small_order() -> set[bytes]:
    """Every encoding of the eight points of small order, with both signs."""
    found: set[Point] = set()
    y = 2
    while len(found) < 8:  # until it has met one of order 8, of which all are multiples
        point = point_at(y)
        if point is not None:
            small = times(ORDER, point)
            found = {times(number, small) for number in range(8)}
        y += 1
    encodings = set()
    for _, y in found:
        for spelled in (y, y + P):
            if spelled < 2**255:
                for sign in (0, 1 << 255):
                    encodings.add((spelled | sign).to_bytes(32, "little"))
    return encodings


def test_keys_for_which_signatures_prove_nothing_are_no_keys() -> None:
    weak = small_order()
    assert len(weak) == 14
    for raw in weak:
        assert not is_public_key(encode(raw))
        for number in range(16):
            assert not verify(encode(raw), bytes([number]), encode(raw + bytes(32)))
