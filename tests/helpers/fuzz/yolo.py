"""Mutations of YOLO's labels and of its data.yaml."""

from __future__ import annotations

import random
from pathlib import Path

from tests.helpers.fuzz.case import Case, content, late
from tests.helpers.fuzz.truth import Box, Option, Truth, box_becomes, gone, same
from tests.helpers.fuzz.values import BAD_TEXT_NUMBERS, odd_spelling

TOLERANCE = 0.01


def labels_of(case: Case, picture: str) -> Path:
    return (case.root / "labels" / picture).with_suffix(".txt")


def _lines(case: Case, picture: str) -> list[str]:
    return labels_of(case, picture).read_text(encoding="utf-8").splitlines()


def _vary(case: Case, rng: random.Random) -> tuple[str, int, list[str], list[str]]:
    """A picture, the place of a box of it, all lines, and the fields of that one."""
    picture, place = case.pick(rng)
    lines = _lines(case, picture)
    return picture, place, lines, lines[place].split()


def _store(case: Case, picture: str, lines: list[str]) -> None:
    labels_of(case, picture).write_text("\n".join(lines), encoding="utf-8")


@content("yolo", "yolo", "yolo")
def coordinate(case: Case, rng: random.Random) -> None:
    picture, place, lines, fields = _vary(case, rng)
    k, kind = rng.randrange(1, 5), rng.randrange(3)
    options, refuse = [], True
    if kind == 0:
        fields[k] = rng.choice([x for x in BAD_TEXT_NUMBERS if " " not in x])
    elif kind == 1:
        fields[k] = odd_spelling(rng, float(fields[k])).strip()
        options = [same]
        refuse = not fields[k].isascii()
    else:
        value = rng.choice([0, -0.0, 1, 0.5, 0.25, 1.005, -0.005, -0.5, 1.5, 12, 300, 1e-9, 0.9])
        fields[k] = repr(value)
        x, y, w, h = map(float, fields[1:])
        height, width = case.truth.sizes[picture]
        corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        corners = [round(a * b, 3) for a, b in zip(corners, (width, height) * 2, strict=True)]
        option = box_becomes(picture, place, corners, (height, width))
        fine = -TOLERANCE <= value <= 1 + TOLERANCE
        options = [option] if fine else []
        refuse = not fine or option.said or not 0 <= value <= 1
    lines[place] = " ".join(fields)
    _store(case, picture, lines)
    where = labels_of(case, picture).name
    places = (f"line {place + 1}", picture)
    note = f"{where} line {place + 1}: {lines[place]!r}"
    case.expect(note, *options, touched=where, refuse=refuse, places=places)
    case.touched.append(picture)


@content("yolo")
def class_number(case: Case, rng: random.Random) -> None:
    picture, place, lines, fields = _vary(case, rng)
    old = fields[0]
    value = rng.choice(
        [
            "0",
            "1",
            "2",
            "3",
            "-1",
            "99",
            "1.0",
            "1.5",
            "abc",
            "nan",
            "True",
            "9" * 400,
            "\u00b2",
            "\uff11",
            "1_0",
            "+1",
            "00",
            f"0{old}",
            "0x1",
            "1e0",
            "ant",
            "?",
            "\u0000",
            "9" * 5000,
        ]
    )
    fields[0] = value
    lines[place] = " ".join(fields)
    _store(case, picture, lines)
    where = labels_of(case, picture).name
    try:
        number = float(value) if "_" not in value else -1.0
    except ValueError:
        number = -1.0
    options = []
    if number in (0, 1, 2):
        label = case.truth.classes[int(number)]

        def edit(truth: Truth) -> None:
            truth.boxes[picture][place].label = label

        options = [Option(edit)]
    note = f"{where} line {place + 1}: class {value[:9]!r}"
    plain = value in ("0", "1", "2")
    places = (f"line {place + 1}",)
    case.expect(note, *options, touched=where, refuse=not plain, places=places)


@content("yolo")
def row(case: Case, rng: random.Random) -> None:
    picture, place, lines, fields = _vary(case, rng)
    x, y, w, h = map(float, fields[1:])
    x1, y1, x2, y2 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
    options: list[Option] = []
    new, right = rng.choice(
        [
            (fields[:4], False),
            (fields[:1], False),
            ([*fields, "0.9"], False),
            ([*fields, *fields], False),
            ([fields[0], *map(repr, polygon)], True),
            ([fields[0], *map(repr, polygon[:7])], False),
            ([fields[0], *map(repr, [x1, y1, x2, y2, x1, y2])], True),
            ([*fields[:3], "", *fields[3:]], True),
            (["#", *fields], False),
        ]
    )
    joint = rng.choice([" ", "\t", "  ", "\u00a0"]) if right else rng.choice([" ", ",", ";"])
    lines[place] = joint.join(new)
    _store(case, picture, lines)
    options = [same] if right else []
    where = labels_of(case, picture).name
    note = f"{where} line {place + 1}: {lines[place]!r}"
    case.expect(note, *options, touched=where, refuse=not right, places=(f"line {place + 1}",))


@late("yolo")
def lines(case: Case, rng: random.Random) -> None:
    if case.notes:
        return  # what was changed before may go
    picture, place, rows, _ = _vary(case, rng)
    where = labels_of(case, picture).name
    kind = rng.choice(["blank", "comment", "twice", "removed", "comma", "empty", "header"])
    said = Option(said=True)
    if kind == "blank":
        rows = [x for row in rows for x in ("", f" {row}\t", " ")]
        case.expect("blank lines", same, touched=where)
    elif kind == "comment":
        rows.insert(place, "# the next one is sure")
        case.expect("a comment", same, touched=where, refuse=True)
    elif kind == "twice":
        rows.append(rows[0])

        def again(truth: Truth) -> None:
            if 0 in truth.boxes[picture]:
                first = truth.boxes[picture][0]
                truth.boxes[picture]["again"] = Box(first.label, first.corners)

        case.expect("a line again", Option(again), said, touched=where)
    elif kind == "removed":
        rows.pop(place)
        case.expect("a line less", Option(gone(picture, place).edit), touched=where)
    elif kind == "comma":
        rows[place] = rows[place].replace(".", ",")
        case.expect("decimal commas", touched=where)
    elif kind == "empty":
        rows = []

        def nothing(truth: Truth) -> None:
            truth.boxes[picture].clear()

        case.expect("no line", Option(nothing), touched=where)
    else:
        rows.insert(0, "class x y w h")
        case.expect("a header", touched=where)
    _store(case, picture, rows)


@late("yolo")
def label_file(case: Case, rng: random.Random) -> None:
    """A file that cannot be a label file, or is in no place for one."""
    if case.notes:
        return  # what was changed before may go
    picture, _ = case.pick(rng)
    path = labels_of(case, picture)
    kind = rng.choice(["folder", "loop", "dangling", "upper", "extra", "other suffix"])
    said = Option(lambda truth: truth.boxes[picture].clear(), said=True)
    text = path.read_bytes()
    options = [said]
    if kind != "extra":
        path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to(path.with_name("nowhere"))
    elif kind == "upper":
        path.with_suffix(".TXT").write_bytes(text)
        options = [said, same]
    elif kind == "extra":
        path.with_name("lost.txt").write_bytes(text)
        options = [Option(said=True)]
    else:
        path.with_name(f"{picture}.txt").write_bytes(text)
    case.expect(f"labels of {picture}: {kind}", *options, touched="labels", refuse=True)
    case.touched += [path.stem, "lost.txt"]
