"""Mutations of the pictures and their folder."""

from __future__ import annotations

import os
import random
from pathlib import Path

from PIL import Image

from tests.helpers.fuzz.case import FORMATS, Case, late
from tests.helpers.fuzz.truth import Option, Truth, same


@late(*FORMATS)
def broken(case: Case, rng: random.Random) -> None:
    """A picture that is none: an error, or a warning where only its name brings it into the set."""
    if case.notes:
        return  # what was changed before may go
    picture, _ = case.pick(rng)
    path = case.images / picture
    kind = rng.choice(["gone", "empty", "text", "cut", "folder", "loop", "noise", "pipe"])
    data = path.read_bytes()
    path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("<html>not found</html>")
    elif kind == "cut":
        path.write_bytes(data[: rng.randrange(1, len(data) - 30)])
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "noise":
        path.write_bytes(data[:40] + rng.randbytes(60))
    options = []
    if case.kind == "yolo" and kind in ("gone", "folder"):

        def edit(truth: Truth) -> None:
            del truth.sizes[picture], truth.boxes[picture]

        options = [Option(edit, said=True)]
    case.expect(f"{picture}: {kind}", *options, touched=picture, refuse=True)
    case.touched.append(f"{Path(picture).stem}.")


@late(*FORMATS)
def other_pixels(case: Case, rng: random.Random) -> None:
    picture, _ = case.pick(rng)
    path = case.images / picture
    mode = rng.choice(["L", "RGBA", "P", "1", "LA", "CMYK", "I;16", "I", "F", "other size"])
    with Image.open(path) as image:
        old = image.convert("RGB")
    if mode == "other size":
        new = Image.new("RGB", (old.width + 3, old.height))
        if case.kind in ("yolo", "csv"):
            new = old
    elif mode in ("I;16", "I", "F"):
        new = Image.new(mode, old.size, 5000)
    else:
        new = old.convert(mode)
    format_of = {"CMYK": "TIFF", "F": "TIFF", "I": "TIFF"}.get(mode, "PNG")
    new.save(path, format_of)
    refused = mode in ("I;16", "I", "F") or (mode == "other size" and new is not old)
    options = [] if refused else [same]
    case.expect(f"{picture} is {mode}", *options, touched=picture)


@late(*FORMATS)
def further_files(case: Case, rng: random.Random) -> None:
    picture, _ = case.pick(rng)
    kind = rng.choice(["system", "cache", "picture", "text", "folder", "twin"])
    said = Option(said=True)
    folder = case.images
    options, refuse = [same], False
    if kind == "system":
        for name in (".DS_Store", f"._{picture}", "Thumbs.db", ".p.png"):
            (folder / name).write_bytes(b"\0\1")
    elif kind == "cache":
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".ipynb_checkpoints" / picture).write_bytes((folder / picture).read_bytes())
    elif kind == "picture":
        (folder / "new.png").write_bytes((folder / picture).read_bytes())
        if case.kind == "yolo":

            def edit(truth: Truth) -> None:
                truth.sizes["new.png"] = truth.sizes[picture]
                truth.boxes["new.png"] = {}

            options = [Option(edit)]
    elif kind == "text":
        (folder / "README.md").write_text("pictures")
    elif kind == "folder":
        (folder / "more.png").mkdir()
    else:  # a.jpg beside a.png: which of them the labels belong to cannot be known
        twin = Path(picture).with_suffix(".jpg").name
        Image.new("RGB", (9, 9)).save(folder / twin)
        refuse = case.kind in ("yolo", "voc")
        options = [same, said] if case.kind != "yolo" else []
    case.expect(f"beside {picture}: {kind}", *options, touched=Path(picture).stem, refuse=refuse)
