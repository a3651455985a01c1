"""Mutations of the lists beside annotations: of pictures, of xml files, of class names."""

from __future__ import annotations

import random
from pathlib import Path

from tests.helpers.fuzz.case import Case, late
from tests.helpers.fuzz.truth import Option, Truth, same


def _listed(rng: random.Random, names: list[str], missing: str) -> tuple[list[str], str]:
    """Lines of a list of these names, and what is odd about it."""
    kind = rng.choice(["plain", "blank", "twice", "missing", "comment", "one less", "order", "nul"])
    lines = list(names)
    if kind == "blank":
        lines = [x for line in lines for x in ("", f"{line}  ")]
    elif kind == "twice":
        lines.append(lines[0])
    elif kind == "missing":
        lines.insert(1, missing)
    elif kind == "comment":
        lines.insert(0, "# pictures")
    elif kind == "one less":
        lines.pop(0)
    elif kind == "order":
        rng.shuffle(lines)
    elif kind == "nul":
        lines[0] = lines[0][:2] + "\0" + lines[0][2:]
    return lines, kind


def _write(path: Path, lines: list[str], rng: random.Random) -> None:
    encoding, end = rng.choice(["utf-8", "utf-8-sig"]), rng.choice(["\n", "\r\n"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(end.join(lines).encode(encoding))


def _options(kind: str, first: str) -> list[Option]:
    def less(truth: Truth) -> None:
        del truth.sizes[first], truth.boxes[first]

    if kind == "one less":
        return [Option(less)]
    return [] if kind in ("missing", "comment", "nul") else [same]


@late("yolo")
def list_of_pictures(case: Case, rng: random.Random) -> None:
    if case.notes:
        return  # what was changed before may not be listed
    names = sorted(case.truth.sizes)
    start = rng.choice(["images/", "./images/", f"{case.root}/images/"])
    lines, kind = _listed(rng, [start + name for name in names], f"{start}none.png")
    _write(case.root / "train.txt", lines, rng)
    path = case.root / "data.yaml"
    text = path.read_text(encoding="utf-8").replace("train: images", "train: train.txt")
    path.write_text(text, encoding="utf-8")
    case.expect(f"train.txt, {kind}", *_options(kind, names[0]), touched="train.txt")
    case.touched += ["none.png", "# pictures"]


@late("voc")
def list_of_xml(case: Case, rng: random.Random) -> None:
    if case.notes:
        return  # what was changed before may not be listed
    names = sorted(case.truth.sizes)
    flag = rng.choice(["", " 1", "  -1"])
    lines, kind = _listed(rng, [Path(name).stem + flag for name in names], "none")
    path = case.root / "ImageSets" / "Main" / "train.txt"
    _write(path, lines, rng)
    case.spec = str(path)
    case.expect(f"train.txt, {kind}", *_options(kind, names[0]), touched="train.txt")


@late("csv")
def list_of_classes(case: Case, rng: random.Random) -> None:
    if case.notes or not case.classes_file:
        return  # the classes may be others
    path = Path(case.classes_file)
    names = case.truth.classes
    kind = rng.choice(["ids", "gaps", "order", "twice", "less", "more", "empty", "bad", "folder"])
    lines, options = list(names), [same]
    if kind in ("ids", "gaps"):
        lines = [f"{name},{i * (3 if kind == 'gaps' else 1)}" for i, name in enumerate(names)]
    elif kind == "order":
        lines = lines[::-1]
        options = [Option(lambda truth: truth.classes.reverse())]
    elif kind == "more":
        lines.append("dog")
        options = [Option(lambda truth: truth.classes.append("dog"))]
    else:
        options = []
        lines = {
            "twice": [*lines, lines[0]],
            "less": lines[:2],
            "empty": [],
            "bad": [f"{name},{i or 'x'}" for i, name in enumerate(names)],
        }.get(kind, lines)
    _write(path, lines, rng)
    if kind == "folder":
        path.unlink()
        path.mkdir()
    case.expect(f"classes.csv: {kind}", *options, touched=path.name)
    case.touched += ["boxes.csv"] if kind == "less" else []
