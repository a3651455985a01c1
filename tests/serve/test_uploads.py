"""Whatever is sent: a picture, or a sentence with the right status."""

from __future__ import annotations

import io
import random
import struct
import zlib

import pytest
from PIL import Image

from retinanet_ext.serve.answers import Refused
from retinanet_ext.serve.uploads import FORMATS, check_content_type, open_upload
from tests.helpers.served import picture

MANY = 10_000_000


def refused(body: bytes, max_pixels: int = MANY) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        open_upload(body, max_pixels)
    return caught.value.status.value, str(caught.value)


def png(width: int, height: int, data: bytes, more: bytes = b"") -> bytes:
    """A gray picture whose header says this size, whatever its data hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_by_its_header(monkeypatch):
    bomb = png(60_000, 50_000, zlib.compress(bytes(1_000_000)))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    status, text = refused(bomb)
    assert status == 413 and "10,000,000 pixels" in text


def test_a_bomb_between_our_limit_and_that_of_pillow_is_refused_without_a_warning(recwarn):
    status, text = refused(png(10_000, 10_000, zlib.compress(bytes(1000))))
    assert status == 413 and "10000 x 10000" in text
    assert not recwarn.list


def test_a_bomb_in_a_text_of_the_file_is_refused():
    content = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    text = struct.pack(">I", len(content)) + b"zTXt" + content
    text += struct.pack(">I", zlib.crc32(b"zTXt" + content))
    assert refused(png(8, 8, zlib.compress(bytes(72)), text))[0] == 415


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_breaks_off_is_refused(format):
    body = picture(300, 200, format)
    if format in ("GIF", "PNG"):  # one colour takes few bytes
        noise = random.Random(0).randbytes(300 * 200 * 3)
        file = io.BytesIO()
        Image.frombytes("RGB", (300, 200), noise).save(file, format)
        body = file.getvalue()
    status, text = refused(body[: len(body) // 2])
    assert status == 415 and text


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"P6 2 2 255 " + bytes(12)],
    ids=["empty", "one byte", "EPS", "PPM"],
)
def test_other_kinds_are_refused(body):
    assert refused(body)[0] == 415


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files_are_a_picture_or_a_sentence(format):
    body = picture(40, 30, format)
    rng = random.Random(0)
    for _ in range(60):
        damaged = bytearray(body)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            assert open_upload(bytes(damaged), MANY).size
        except Refused as error:
            assert error.status.value in (413, 415) and "\n" not in str(error)


def test_of_several_frames_the_first_is_taken():
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    image = open_upload(file.getvalue(), MANY).convert("RGB")
    assert image.getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["image/png", "image/heic", "Application/Octet-Stream; x=y"])
def test_content_types_of_pictures_and_bytes_are_taken(kind):
    check_content_type(kind)
