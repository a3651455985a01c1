"""Mutations of the bytes of an annotation file of any format."""

from __future__ import annotations

import random

from tests.helpers.fuzz.case import FORMATS, Case, late
from tests.helpers.fuzz.truth import Option, Truth, same

NOT_ASCII = "\u00eb"  # in a name of a class


@late(*FORMATS)
def encoding(case: Case, rng: random.Random) -> None:
    path = case.annotation_file(rng)
    text = path.read_text(encoding="utf-8")
    name = rng.choice(["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "gbk"])
    if name == "latin-1" and text.encode("latin-1", "replace").decode("latin-1") != text:
        name = "gbk"
    plain = name == "utf-8-sig" or (text.isascii() and name in ("latin-1", "gbk"))
    if name == "gbk":
        text = text.replace(NOT_ASCII, "\u86c7")
    path.write_bytes(text.encode(name))
    options = [same]
    if name in ("latin-1", "gbk") and not plain:
        options = [same] if name == "latin-1" else []
    case.expect(f"{path.name} in {name}", *options, touched=path.name, refuse=not plain)
    if case.kind == "yolo" and name == "utf-8-sig":
        case.may_refuse = True


@late(*FORMATS)
def declared_encoding(case: Case, rng: random.Random) -> None:
    """An xml that says how it is written, rightly or not; for the others another line end."""
    path = case.annotation_file(rng)
    text = path.read_text(encoding="utf-8")
    if case.kind != "voc":
        end = rng.choice(["\r\n", "\r\n", "\r"])
        path.write_bytes(text.replace("\n", end).encode())
        case.expect(f"{path.name} with {end!r}", same, touched=path.name, refuse=end == "\r")
        return
    declared, real = rng.choice(
        [
            ("latin-1", "latin-1"),
            ("utf-8", "latin-1"),
            ("utf-16", "utf-16"),
            ("utf-16", "utf-8"),
            ("gbk", "gbk"),
            ("what", "utf-8"),
            ("ascii", "utf-8"),
            ("UTF8", "utf-8"),
            ("", "utf-8"),
        ]
    )
    text = text.replace(NOT_ASCII, "\u86c7") if real == "gbk" else text
    path.write_bytes(f'<?xml version="1.0" encoding="{declared}"?>{text}'.encode(real))
    right = declared == real
    same_bytes = text.isascii() and real in ("utf-8", "latin-1")
    options = [same] if right or same_bytes or declared in ("UTF8", "utf-8") else []
    if right and real == "gbk" and not text.isascii():
        options = [_renamed(path.stem, "b\u86c7e")]
    if declared == "utf-8" and real == "latin-1" and not same_bytes:
        options = []
    note = f"{path.name} in {real}, declared as {declared}"
    case.expect(note, *options, touched=path.name, refuse=declared not in ("latin-1", "utf-16"))
    case.may_refuse |= declared == "utf-16" and real != "utf-16"


def _renamed(stem: str, new: str) -> Option:
    """The class that is not ASCII has another name in one picture."""

    def edit(truth: Truth) -> None:
        picture = next(name for name in truth.sizes if name.startswith(stem))
        for box in truth.boxes[picture].values():
            box.label = new if NOT_ASCII in box.label else box.label
        used = {box.label for boxes in truth.boxes.values() for box in boxes.values()}
        truth.classes[:] = sorted(used)

    return Option(edit)


@late(*FORMATS)
def cut_short(case: Case, rng: random.Random) -> None:
    path = case.annotation_file(rng)
    data = path.read_bytes()
    if case.kind in ("coco", "voc"):
        end = rng.randrange(len(data))
        path.write_bytes(data[:end])
    else:
        rows = data.splitlines()
        last = rows[-1] if case.kind == "yolo" else rows[-2]
        parts = last.split() if case.kind == "yolo" else last.split(b",")
        kept = (b" " if case.kind == "yolo" else b",").join(parts[: rng.randrange(2, len(parts))])
        path.write_bytes(data[: data.rindex(last)] + kept)
    case.expect(f"{path.name} cut short", touched=path.name)


@late(*FORMATS)
def odd_bytes(case: Case, rng: random.Random) -> None:
    """Bytes that are no text, anywhere: never read as if they were not there."""
    path = case.annotation_file(rng)
    data = path.read_bytes()
    noise = rng.choice([b"\0", b"\xff", b"\x80\x81", b"\0" * 4096, b"\x1a\x01"])
    place = rng.randrange(1, len(data))
    path.write_bytes(data[:place] + noise + data[place:])
    case.expect(f"{path.name} with {noise[:4]!r} at {place}", touched=path.name)
    if case.kind == "yolo" and noise == b"\x80\x81":
        case.may_refuse = True


@late(*FORMATS)
def other_content(case: Case, rng: random.Random) -> None:
    path = case.annotation_file(rng)
    if case.kind == "yolo":
        path = case.root / "data.yaml"
    kind = rng.choice(["empty", "spaces", "html", "zip", "folder", "loop", "noise", "number"])
    if kind in ("folder", "loop"):
        path.unlink()
        path.mkdir() if kind == "folder" else path.symlink_to(path)
    else:
        texts = {
            "empty": b"",
            "spaces": b" \n \n",
            "html": b"<!doctype html><html><body>404</body></html>",
            "zip": b"PK\x03\x04" + rng.randbytes(200),
            "noise": rng.randbytes(500),
            "number": b"42",
        }
        path.write_bytes(texts[kind])
    case.expect(f"{path.name}: {kind}", touched=path.name)
    case.touched.append(path.parent.name)
