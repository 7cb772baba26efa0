from __future__ import annotations

import hashlib
import struct
import threading
import zlib
from io import BytesIO

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from trio.testing import wait_all_tasks_blocked

from reileta.errors import ImageInvalid, Overloaded
from reileta.media import images
from reileta.media.images import LIMIT_BYTES, LIMIT_CHUNKS, LIMIT_SIDE, Picture, Pictures, renewed

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SCRIPT = b"<script>alert(1)</script>"


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int = 2, height: int = 2, depth: int = 8, colour: int = 0, *more: int) -> bytes:
    more = more or (0, 0, 0)
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, *more))


PIXELS = chunk(b"IDAT", zlib.compress(b"\x00\x01\x02\x00\x03\x04"))
SMALL = SIGNATURE + header() + PIXELS + chunk(b"IEND")


def png(image: Image.Image, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def kinds(data: bytes) -> set[bytes]:
    found = set()
    at = len(SIGNATURE)
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        found.add(kind)
        at += 12 + length
    return found


def opened(picture: Picture) -> Image.Image:
    image = Image.open(BytesIO(picture.png))
    image.load()
    return image


def refusal(data: bytes) -> str:
    with pytest.raises(ImageInvalid) as caught:
        renewed(data, field="thumbnail")
    (detail,) = caught.value.details
    assert (caught.value.code, detail.field) == (124, "thumbnail")
    return detail.message


def test_a_picture_comes_out_with_its_pixels() -> None:
    image = Image.effect_noise((37, 23), 60).convert("RGBA")
    picture = renewed(png(image))
    assert (picture.width, picture.height) == (37, 23)
    assert picture.hash == hashlib.sha256(picture.png).hexdigest()
    assert opened(picture).tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_kind_of_colour_is_taken(mode: str) -> None:
    grey = Image.effect_noise((16, 16), 60)
    image = (grey.convert("RGBA") if mode == "LA" else grey).convert(mode)
    assert opened(renewed(png(image))).convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


def test_sixteen_bits_of_grey_become_eight() -> None:
    data = b"".join(b"\x00" + struct.pack(">HH", *row) for row in [(0, 257), (30_000, 65_535)])
    idat = chunk(b"IDAT", zlib.compress(data))
    picture = renewed(SIGNATURE + header(2, 2, 16, 0) + idat + chunk(b"IEND"))
    assert list(opened(picture).tobytes()) == [0, 1, 117, 255]


@pytest.mark.parametrize(
    ("mode", "transparency"), [("P", 3), ("P", bytes(range(256))), ("L", 7), ("RGB", (1, 1, 1))]
)
def test_what_is_transparent_stays_so(mode: str, transparency: object) -> None:
    image = Image.linear_gradient("L").resize((16, 16)).convert(mode)
    data = png(image, transparency=transparency)
    expected = Image.open(BytesIO(data)).convert("RGBA")
    assert opened(renewed(data)).convert("RGBA").tobytes() == expected.tobytes()


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("behind", [False, True])
def test_a_picture_comes_out_upright(orientation: int, behind: bool) -> None:
    image = Image.effect_noise((5, 3), 60)
    exif = Image.Exif()
    exif[0x0112] = orientation
    # PNG holds Exif without the prefix that it has in JPEG.
    data, turned = png(image), chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    end = len(data) - len(chunk(b"IEND")) if behind else len(SIGNATURE + header())
    picture = renewed(data[:end] + turned + data[end:])
    image.info["exif"] = exif.tobytes()
    upright = ImageOps.exif_transpose(image)
    assert upright is not None
    assert (picture.width, picture.height) == upright.size
    assert opened(picture).tobytes() == upright.tobytes()


@given(st.binary(max_size=60))
def test_any_exif_is_a_picture_s(exif: bytes) -> None:
    for start in (b"", b"Exif\0\0", b"MM\0*\0\0\0\x08\0\1\1\x12", b"II*\0\x08\0\0\0"):
        at = len(SIGNATURE + header())
        picture = renewed(SMALL[:at] + chunk(b"eXIf", start + exif) + SMALL[at:])
        assert (picture.width, picture.height) == (2, 2)


def test_equal_pictures_have_equal_hashes() -> None:
    text = PngInfo()
    text.add_text("Comment", "one")
    image = Image.new("RGB", (9, 9), "red")
    assert renewed(png(image)).hash == renewed(png(image, pnginfo=text)).hash


def test_nothing_but_the_picture_comes_through() -> None:
    text = PngInfo()
    text.add_text("Comment", SCRIPT.decode())
    text.add_text("Big", SCRIPT.decode(), zip=True)
    text.add_itxt("International", SCRIPT.decode())
    image = Image.new("RGB", (4, 4), "blue")
    exif = Image.Exif()
    exif[0x010E] = SCRIPT.decode()
    data = png(image, pnginfo=text, icc_profile=SCRIPT * 9, exif=exif, dpi=(72, 72))
    assert kinds(data) > {b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"pHYs"}
    picture = renewed(data + SCRIPT)
    assert kinds(picture.png) == {b"IHDR", b"IDAT", b"IEND"}
    assert SCRIPT not in picture.png
    assert picture.png.endswith(chunk(b"IEND"))


def test_what_no_pixel_uses_does_not_come_through() -> None:
    # After the last line, the compressed stream may go on.
    pixels = zlib.compress(b"\x00\x01\x02\x00\x03\x04" + SCRIPT, level=0)
    data = SIGNATURE + header() + chunk(b"IDAT", pixels) + chunk(b"IEND")
    assert SCRIPT in data
    assert SCRIPT not in renewed(data).png


def test_an_animation_becomes_its_first_picture() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    data = png(frames[0], save_all=True, append_images=frames[1:])
    assert b"acTL" in kinds(data)
    picture = renewed(data)
    assert kinds(picture.png) == {b"IHDR", b"IDAT", b"IEND"}
    assert opened(picture).convert("RGB").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP", "WEBP", "TIFF", "ICO"])
def test_only_png_is_taken(kind: str) -> None:
    out = BytesIO()
    Image.new("RGB", (16, 16)).save(out, kind)
    assert refusal(out.getvalue()) == "must be a PNG"


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG", b"<svg/>", SCRIPT, b"GIF89a" + SMALL, SMALL[1:], SMALL.lower()]
)
def test_what_does_not_begin_as_a_png_is_none(data: bytes) -> None:
    assert refusal(data) == "must be a PNG"


@pytest.mark.parametrize(
    ("width", "height"),
    [(60_000, 60_000), (LIMIT_SIDE + 1, 1), (1, LIMIT_SIDE + 1), (0, 1), (2**32 - 1, 1)],
)
def test_a_bomb_is_refused_by_its_header(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    monkeypatch.setattr(images, "decoded", decoded.append)
    data = SIGNATURE + header(width, height) + PIXELS + chunk(b"IEND")
    assert refusal(data) == "must have 1 to 4096 pixels a side"
    assert decoded == []


def test_the_largest_picture_is_taken() -> None:
    assert renewed(png(Image.new("1", (LIMIT_SIDE, LIMIT_SIDE)))).width == LIMIT_SIDE


def test_a_picture_that_expands_beyond_its_pixels_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    # 200 MB of zeros behind a header of 2 x 2: only what the header claims is decompressed.
    pixels = zlib.compress(bytes(200_000_000))
    picture = renewed(SIGNATURE + header() + chunk(b"IDAT", pixels) + chunk(b"IEND"))
    assert len(picture.png) < 100


def test_a_file_over_the_limit_is_refused() -> None:
    padding = chunk(b"tEXt", bytes(LIMIT_BYTES))
    data = SIGNATURE + header() + PIXELS + padding + chunk(b"IEND")
    assert refusal(data) == f"must be at most {LIMIT_BYTES} bytes"
    assert refusal(SMALL + bytes(LIMIT_BYTES)) == f"must be at most {LIMIT_BYTES} bytes"


def test_a_file_of_too_many_chunks_is_refused() -> None:
    data = SIGNATURE + header() + chunk(b"tEXt") * LIMIT_CHUNKS + PIXELS + chunk(b"IEND")
    assert refusal(data) == f"must have at most {LIMIT_CHUNKS} chunks"


@pytest.mark.parametrize("size", range(len(SIGNATURE), len(SMALL)))
def test_a_file_that_is_cut_off_is_refused(size: int) -> None:
    assert refusal(SMALL[:size]) == "is truncated"


def test_a_file_whose_pixels_are_cut_off_is_refused() -> None:
    whole = zlib.compress(b"\x00" + bytes(range(200)) + b"\x00" + bytes(range(200)), level=0)
    data = SIGNATURE + header(200, 2) + chunk(b"IDAT", whole[:250]) + chunk(b"IEND")
    assert refusal(data) == "is not a complete PNG"
    assert refusal(SIGNATURE + header() + chunk(b"IEND")) == "is not a complete PNG"


@pytest.mark.parametrize(
    "data",
    [
        PIXELS + header(),
        header() + header() + PIXELS,
        chunk(b"IHDR", b"short") + PIXELS,
        header(2, 2, 3, 0) + PIXELS,
        header(2, 2, 8, 1) + PIXELS,
        header(2, 2, 8, 0, 1, 0, 0) + PIXELS,
        header(2, 2, 8, 0, 0, 1, 0) + PIXELS,
        header(2, 2, 8, 0, 0, 0, 2) + PIXELS,
        header() + chunk(b"IDAT", b"no deflate"),
    ],
)
def test_what_is_no_whole_png_is_refused(data: bytes) -> None:
    assert refusal(SIGNATURE + data + chunk(b"IEND")) == "is not a complete PNG"


def test_a_wrong_checksum_is_refused() -> None:
    at = SMALL.index(b"IDAT") + 6
    data = SMALL[:at] + bytes([SMALL[at] ^ 1]) + SMALL[at + 1 :]
    assert refusal(data) == "is corrupt: checksum mismatch"


def test_a_chunk_longer_than_the_file_is_refused() -> None:
    assert refusal(SIGNATURE + header() + b"\xff\xff\xff\xffIDAT" + bytes(40)) == "is truncated"


@given(data=st.data())
def test_nothing_but_a_picture_or_a_refusal_comes_of_any_bytes(data: st.DataObject) -> None:
    kind = st.sampled_from(
        [
            b"IHDR",
            b"PLTE",
            b"tRNS",
            b"IDAT",
            b"acTL",
            b"iCCP",
            b"gAMA",
            b"cHRM",
            b"cICP",
            b"sRGB",
            b"eXIf",
            b"zTXt",
        ]
    )
    body = st.one_of(st.binary(max_size=64), st.binary(max_size=64).map(zlib.compress))
    parts = st.lists(st.builds(chunk, kind, body), max_size=4).map(b"".join)
    head = st.builds(
        header,
        st.integers(1, 9),
        st.integers(1, 9),
        st.sampled_from([1, 2, 4, 8, 16]),
        st.sampled_from([0, 2, 3, 4, 6]),
        st.just(0),
        st.just(0),
        st.integers(0, 1),
    )
    crafted = SIGNATURE + data.draw(head) + data.draw(parts) + chunk(b"IEND")
    try:
        picture = renewed(crafted)
    except ImageInvalid:
        return
    assert kinds(picture.png) <= {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


async def test_a_picture_is_made_in_a_thread() -> None:
    picture = await Pictures().renew(SMALL)
    assert (picture.width, picture.height) == (2, 2)
    with pytest.raises(ImageInvalid) as caught:
        await Pictures().renew(b"", field="banner")
    assert caught.value.details[0].field == "banner"


async def test_when_too_many_wait_the_next_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "WAITING_LIMIT", 3)
    gate = threading.Event()
    running: list[int] = []

    def held(data: bytes, *, field: str) -> Picture:
        running.append(1)
        most.append(len(running))
        gate.wait(10)
        running.pop()
        return renewed(data, field=field)

    most: list[int] = []
    monkeypatch.setattr(images, "renewed", held)
    pictures = Pictures(threads=1)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(pictures.renew, SMALL)
        await wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await pictures.renew(SMALL)
        gate.set()
    assert most == [1] * 4
