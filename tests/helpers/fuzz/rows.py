"""Mutations of a CSV."""

from __future__ import annotations

import csv
import io
import random

from tests.helpers.fuzz.case import Case, content, late
from tests.helpers.fuzz.truth import Box, Option, Truth, box_becomes, gone, same
from tests.helpers.fuzz.values import BAD_TEXT_NUMBERS, as_written, odd_spelling, random_number

FILE = "boxes.csv"
HEADERS = (
    "path,x1,y1,x2,y2,class",
    "filename,xmin,ymin,xmax,ymax,label",
    "Image_Path,X_MIN,Y_MIN,X_MAX,Y_MAX,Class_Name",
)
LAYOUTS = [
    "header",
    "other order",
    "more columns",
    "delimiter",
    "blank",
    "trailing",
    "quoted",
    "order",
    "header later",
    "no class",
    "x1 twice",
    "quote",
    "twice",
    "removed",
    "odd header",
]


def load(case: Case) -> list[list[str]]:
    return list(csv.reader((case.root / FILE).read_text(encoding="utf-8").splitlines()))


def store(case: Case, rows: list[list[str]], **options: str) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", **options).writerows(rows)  # type: ignore[arg-type]
    (case.root / FILE).write_text(text.getvalue(), encoding="utf-8")


def _vary(case: Case, rng: random.Random) -> tuple[str, int, list[list[str]], int]:
    """A picture, the place of a box of it, all rows, and the number of that one from 0."""
    picture, place = case.pick(rng)
    number = 0
    for name, boxes in case.truth.boxes.items():
        if name == picture:
            break
        number += max(1, len(boxes))
    return picture, place, load(case), number + place


@content("csv", "csv", "csv")
def coordinate(case: Case, rng: random.Random) -> None:
    picture, place, rows, number = _vary(case, rng)
    row = rows[number]
    k, kind = rng.randrange(1, 5), rng.randrange(3)
    options: list[Option] = []
    if kind == 0:
        row[k] = rng.choice([*BAD_TEXT_NUMBERS, "", " "])
    elif kind == 1:
        row[k] = odd_spelling(rng, float(row[k]))
        options = [same]
    else:
        row[k] = as_written(random_number(rng))
        corners = [float(x) for x in row[1:5]]
        options = [box_becomes(picture, place, corners, case.truth.sizes[picture])]
    store(case, rows)
    said = bool(options) and options[0].said
    refuse = not options or said or not row[k].isascii()
    places = () if said else (f"line {number + 1}",)
    case.expect(f"row {number + 1}: {row}", *options, touched=FILE, refuse=refuse, places=places)
    case.touched.append(picture)


@content("csv")
def label(case: Case, rng: random.Random) -> None:
    picture, place, rows, number = _vary(case, rng)
    old = rows[number][5]
    value = rng.choice(["", "  ", "dog", f" {old} ", f"{old}\t", "\u86c7", "12", "None", "a,b"])
    rows[number][5] = value
    store(case, rows)

    def edit(truth: Truth) -> None:
        truth.boxes[picture][place].label = value.strip()
        if not case.classes_file:
            used = {box.label for boxes in truth.boxes.values() for box in boxes.values()}
            truth.classes[:] = sorted(used)

    known = value.strip() in case.truth.classes
    options = [Option(edit)] if value.strip() and (known or not case.classes_file) else []
    note = f"row {number + 1}: class = {value!r}"
    case.expect(note, *options, touched=FILE, places=(f"line {number + 1}",))


@content("csv")
def path(case: Case, rng: random.Random) -> None:
    _, _, rows, number = _vary(case, rng)
    old = rows[number][0]
    name = old.partition("/")[2]
    alike = ["./" + old, str(case.root / old), f"x/../{old}", f" {old}", f"pictures\\{name}"]
    bad = ["", "none.png", "pictures", "/", "..", name, "http://a/b.png", "~", f"{old}\u0000"]
    value = rng.choice([*alike, *bad, "a" * 300, f"{old}/", old.upper(), f"{old};1", "p\u00a0.png"])
    rows[number][0] = value
    store(case, rows)
    options = [same] if value in alike or value == f"{old}/" else []
    refuse = value not in alike[:3]
    note = f"row {number + 1}: path = {value[:60]!r}"
    case.expect(note, *options, touched=FILE, refuse=refuse, places=(f"line {number + 1}",))


@content("csv")
def fields(case: Case, rng: random.Random) -> None:
    """A row of other fields than the others; none of it is a box that can be known."""
    _, _, rows, number = _vary(case, rng)
    row = rows[number]
    new = rng.choice(
        [
            [*row[:1], row[1].split(".")[0], "5", *row[2:]],  # a decimal comma
            [*row, "0.9"],
            ["7", *row],
            row[:5],
            row[:3],
            [*row[:5], ""],
            [row[0], "", "", "", "", row[5]],
            [row[0], *row[1:4], "", row[5]],
            [" ".join(row)],
            [";".join(row)],
            [f"#{row[0]}", *row[1:]],
        ]
    )
    rows[number] = new
    store(case, rows)
    case.expect(f"row {number + 1}: {new}", touched=FILE, places=(f"line {number + 1}",))


@late("csv")
def layout(case: Case, rng: random.Random) -> None:
    if case.notes:
        return  # what was changed before may go
    rows = load(case)
    kind = rng.choice(LAYOUTS)
    options: list[Option] = [same]
    refuse = False
    header = rng.choice(HEADERS).split(",")
    write: dict[str, object] = {}
    if kind == "header":
        rows.insert(0, header)
    elif kind in ("other order", "more columns"):
        table = [header, *rows]
        if kind == "more columns":
            table = [[*row, "17", "x"] for row in table]
            table[0][-2:] = ["width2", "remark"]
        columns = list(range(len(table[0])))
        rng.shuffle(columns)
        rows = [[row[i] for i in columns] for row in table]
    elif kind == "delimiter":
        write["delimiter"], options = rng.choice(";\t|"), []
    elif kind == "blank":
        rows = [x for row in rows for x in (row, [], ["", "", ""])]
    elif kind == "trailing":
        rows, refuse = [[*row, ""] for row in rows], True
    elif kind == "quoted":
        write["quoting"] = csv.QUOTE_ALL
    elif kind == "order":
        rng.shuffle(rows)
    elif kind == "header later":
        rows.insert(rng.randrange(1, len(rows)), header)
        options = []
    elif kind == "no class":
        rows, options = [header[:5], *(row[:5] for row in rows)], []
    elif kind == "x1 twice":
        rows = [[*header, header[1]], *([*row, row[1]] for row in rows)]
        refuse = True
        rows[1][-1], options = "7", []
    elif kind == "quote":
        number = rng.randrange(9)
        rows[number][0] = "@" + rows[number][0]
        options = []
    elif kind == "odd header":
        rows.insert(0, ["image", "left", "top", "right", "bottom", "name"])
        options = []
    elif kind == "twice":
        rows.append(rows[0])
        name = next(iter(case.truth.boxes))

        def again(truth: Truth) -> None:
            if 0 in truth.boxes[name]:
                first = truth.boxes[name][0]
                truth.boxes[name]["again"] = Box(first.label, first.corners)

        options = [Option(again), Option(said=True)]
    else:
        number = rng.randrange(9)
        name = f"p{number // 3:02d}.png"
        rows.pop(number)
        options = [Option(gone(name, number % 3).edit)]
    store(case, rows, **write)  # type: ignore[arg-type]
    if kind == "quote":
        file = case.root / FILE
        file.write_text(file.read_text(encoding="utf-8").replace("@", '"'), encoding="utf-8")
    case.expect(f"layout: {kind}", *options, touched=FILE, refuse=refuse or not options)
