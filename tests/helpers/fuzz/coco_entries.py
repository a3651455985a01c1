"""Mutations of the pictures and classes of a COCO json, and of fields that are not read."""

from __future__ import annotations

import math
import random

from tests.helpers.fuzz.case import Case, content
from tests.helpers.fuzz.coco import FILE, MISSING, load, put, store, vary
from tests.helpers.fuzz.truth import Option, Truth, same


def _vary_entry(case: Case, rng: random.Random, what: str) -> tuple[dict, dict, int]:
    rows = load(case)
    number = rng.randrange(len(rows[what]))
    return rows, rows[what][number], number


@content("coco")
def size(case: Case, rng: random.Random) -> None:
    rows, row, number = _vary_entry(case, rng, "images")
    key = rng.choice(["height", "width"])
    old = row[key]
    value, right = rng.choice(
        [(x, True) for x in (MISSING, None, 0, float(old), str(old), f" {old}", f"{old}.0")]
        + [(x, False) for x in (True, [], [old], {}, "tall", "", -3, 1, old + 1, old // 2, 10**400)]
        + [(x, False) for x in (2**63, 2**31, 1e300, math.nan, math.inf, old + 0.5, "1_0", "1e400")]
    )
    name = row["file_name"]
    put(row, key, value)
    store(case, rows)
    # One that cannot be right is refused, or the picture is asked.
    place = (f"entry {number}", name)
    note = f"{name}: {key} = {value!r}"
    case.expect(note, same, touched=FILE, refuse=not right, places=place)
    case.touched.append(name)


@content("coco")
def file_name(case: Case, rng: random.Random) -> None:
    rows, row, number = _vary_entry(case, rng, "images")
    name = row["file_name"]
    alike = ["./" + name, f"{case.images}/{name}", f"../pictures/{name}", f".\\{name}", f"{name} "]
    value, right = rng.choice(
        [(x, True) for x in alike]
        + [
            (x, False)
            for x in (MISSING, None, "", " ", 7, True, [], [name], {}, "none.png", ".", "/")
        ]
        + [(x, False) for x in ("a" * 300 + ".png", "a\u0000b.png", "\ud800.png", "..", f"{name}/")]
        + [(x, False) for x in ("http://a/b.png", "~/" + name, name.upper() + "X", "p\nq.png")]
    )
    put(row, "file_name", value)
    store(case, rows)
    options = [same] if right or value == f"{name}/" else []
    note = f"entry {number}: file_name = {value!r}"
    case.expect(note, *options, touched=FILE, refuse=value not in alike[:2])
    case.touched.append(str(value)[:20] if isinstance(value, str) and value.strip() else FILE)


@content("coco")
def entry_id(case: Case, rng: random.Random) -> None:
    """The id of a picture or a class, changed alike wherever it stands."""
    what, key = rng.choice([("images", "image_id"), ("categories", "category_id")])
    rows, row, number = _vary_entry(case, rng, what)
    old, last = row["id"], row["id"] == max(x["id"] for x in rows[what])
    value, fine = rng.choice(
        [(x, True) for x in ([old + 1000, 2**63 - 1, 2**63, 2**70] if last else [old])]
        + [(x, False) for x in (None, True, [], [1], {}, 1.5, math.nan, "a", MISSING, float(old))]
    )
    put(row, "id", value)
    for annotation in rows["annotations"]:
        if annotation.get(key) == old and value is not MISSING:
            annotation[key] = value
    store(case, rows)
    alike = [same] if fine or (isinstance(value, str | float) and value == value) else []
    place = (f"entry {number}", row.get("file_name") or str(row.get("name")))
    note = f"{what} {number}: id = {value!r}"
    if what == "categories" and value in ("a", 1.5, float(old)) and not isinstance(value, int):
        place = ()
    case.expect(note, *alike, touched=FILE, refuse=not fine, places=place)


@content("coco")
def class_name(case: Case, rng: random.Random) -> None:
    rows, row, number = _vary_entry(case, rng, "categories")
    old = row["name"]
    other = rows["categories"][number - 1]["name"]
    kept = ["\u86c7", "x" * 500, "a,b", 'q"', "None", "<b>", "12", "a\tb", "%s {}"]
    value = rng.choice(
        [*kept, None, True, False, [], [old], {}, "", "  ", math.nan, other, MISSING]
    )
    put(row, "name", value)
    store(case, rows)

    def edit(truth: Truth) -> None:
        truth.classes[truth.classes.index(old)] = value
        for boxes in truth.boxes.values():
            for box in boxes.values():
                box.label = value if box.label == old else box.label

    options = [Option(edit)] if value in kept else []
    case.expect(f"class {number}: name = {value!r}", *options, touched=FILE)


@content("coco")
def unused_fields(case: Case, rng: random.Random) -> None:
    def change(row: dict, picture: str, place: int) -> tuple[str, list[Option], bool]:
        key, values = rng.choice(
            [
                (
                    "segmentation",
                    [None, [], [[]], [[1, 2, 3]], [["a"]], {"counts": "x", "size": 3}],
                ),
                (
                    "segmentation",
                    [{"counts": [1, -5], "size": [4, 4]}, "poly", 7, [[math.nan] * 6]],
                ),
                ("area", [None, [], "big", -1, math.nan, 10**400, True, {}]),
                ("id", [MISSING, None, 0, -1, [], {}, "a", 1, 2, 2**70, 1.5, True, math.nan]),
                ("keypoints", [[1, 2], "none", None]),
                ("score", [0.5, "high"]),
                ("attributes", [{"occluded": True}, [], None]),
                ("\u0000", [1]),
            ]
        )
        value = rng.choice(values)
        put(row, key, value) if key in row or value is not MISSING else None
        return f"{key} = {value!r}", [same], False

    vary(case, rng, change)
