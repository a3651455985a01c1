"""Mutations of YOLO's labels and of its data.yaml."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

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


@content("yolo")
@content("yolo")
@content("yolo")
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
        ["0", "1", "2", "3", "-1", "99", "1.0", "1.5", "abc", "nan", "True", "9" * 400, "\u00b2"]
        + ["\uff11", "1_0", "+1", "00", f"0{old}", "0x1", "1e0", "ant", "?", "\u0000", "9" * 5000]
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
    if not case.accepted:
        return  # what is at fault may go
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
    if not case.accepted:
        return  # it may be the faulty file that goes
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


def _renamed(new: list[str]) -> Option:
    def edit(truth: Truth) -> None:
        names = dict(zip(truth.classes, new, strict=False))
        for boxes in truth.boxes.values():
            for box in boxes.values():
                box.label = names[box.label]
        truth.classes[:] = new

    return Option(edit)


@late("yolo")
@late("yolo")
def data_yaml(case: Case, rng: random.Random) -> None:
    path = case.root / "data.yaml"
    before: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = case.truth.classes
    named = {str(i): x for i, x in enumerate(names)}
    four = _renamed([*names, "dog"])
    choices: list[tuple[dict[str, Any], list[Option], bool]] = [
        ({"names": dict(enumerate(names))}, [same], False),
        ({"names": named}, [same], True),
        ({"names": dict(reversed(list(enumerate(names))))}, [same], False),
        ({"names": [*names, "dog"], "nc": 4}, [four], False),
        ({"names": {**dict(enumerate(names)), 7: "dog"}, "nc": 4}, [four], True),
        ({"nc": None}, [same], True),
        ({"nc": "3"}, [same], True),
        ({"nc": 3.0}, [same], True),
        ({"path": None}, [same], True),
        ({"path": str(case.root)}, [same], False),
        ({"train": ["images"]}, [same], False),
        ({"train": ["images", "images"]}, [same], False),
        ({"train": "./images/"}, [same], False),
        ({"train": str(case.root / "images")}, [same], False),
        ({"val": "images", "test": None}, [same], False),
        ({"download": "http://x/y.zip", "roboflow": {"a": 1}}, [same], False),
        ({"names": [12, *names[1:]]}, [_renamed(["12", *names[1:]])], False),
    ]
    choices += [
        ({"names": value}, [], True)
        for value in (
            None,
            "ant",
            3,
            [],
            {},
            [[]],
            [None] * 3,
            [True, "a", "b"],
            {0: "a", 0.5: "b"},
        )
    ]
    choices += [
        ({"names": value}, [], True)
        for value in (["a", "a", "b"], {-1: "a"}, [""] * 3, names[:2], [1.5, "a", "b"], {"a": "b"})
    ]
    choices += [({"nc": x}, [], True) for x in (2, 0, -1, "x", True, [3], 1e9, {})]
    odd = (
        None,
        "",
        "nowhere",
        7,
        [],
        {},
        [[]],
        True,
        ["nowhere"],
        "data.yaml",
        [None],
        "\u0000",
        "/",
    )
    choices += [({"train": x}, [], True) for x in odd[:-1]]
    choices += [({"path": x}, [same], True) for x in odd]
    changes, options, refuse = rng.choice(choices)
    path.write_text(yaml.safe_dump({**before, **changes}, allow_unicode=True), encoding="utf-8")
    case.expect(f"data.yaml: {changes}", *options, touched="data.yaml", refuse=refuse)
    case.touched.append(path.parent.name if "train" in changes else "data.yaml")


@late("yolo")
def yaml_text(case: Case, rng: random.Random) -> None:
    path = case.root / "data.yaml"
    a, b, c = case.truth.classes
    start = "path: .\ntrain: images\n"
    text, options = rng.choice(
        [
            (f"{start}names: [{a}, {b}, {c}]\nnames: [{c}, {b}, {a}]\n", []),
            (f"{start}names:\n  0: {a}\n  1: {b}\n  2: {c}\n  2: dog\n", []),
            (f"{start}names: [{a}, {b}, 010]\n", [_renamed([a, b, "010"])]),
            (f"{start}names: [{a}, {b}, 1_0]\n", [_renamed([a, b, "1_0"])]),
            (f"{start}names: [{a}, {b}, 1:30]\n", [_renamed([a, b, "1:30"])]),
            (f"{start}names: [{a}, {b}, no]\n", [_renamed([a, b, "no"])]),
            (f"{start}names: [{a}, {b}, 2020-01-01]\n", [_renamed([a, b, "2020-01-01"])]),
            (f"{start}names:\n\t- {a}\n", []),
            (f"{start}names: !!python/object/apply:os.getcwd []\n", []),
            (f"{start}names: [{a}, {b}, {c}\n", []),
            (f"{start}names: [{a}, {b}, {c}]\n---\nx: 1\n", []),
            (f"---\n# all\n{start}names: ['{a}', \"{b}\", {c}] # end\n...\n", [same]),
            (f"{start}names: &n [{a}, {b}, {c}]\nother: *n\n", [same]),
            (f"{start}names: [{a}, {b}, *x]\n", []),
            ("", []),
            ("- a\n- b\n", []),
            (f"{start}names: {'[' * 3000}\n", []),
            (f"{start}names: [{a}, {b}, {c}]\n{'[' * 3000}{']' * 3000}: 1", []),
        ]
    )
    path.write_text(text, encoding="utf-8")
    case.expect(
        f"data.yaml: {text[-60:]!r}", *options, touched="data.yaml", refuse=text[0:1] != "-"
    )
