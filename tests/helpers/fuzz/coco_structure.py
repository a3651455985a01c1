"""Mutations of the structure and the text of a COCO json."""

from __future__ import annotations

import json
import random

from tests.helpers.fuzz.case import Case, late
from tests.helpers.fuzz.coco import FILE, load, store
from tests.helpers.fuzz.truth import Box, Option, Truth, gone, same


@late("coco")
def other_order(case: Case, rng: random.Random) -> None:
    rows = load(case)
    for key in ("images", "annotations", "categories"):
        rng.shuffle(rows[key])
        rows[key] = [dict(sorted(x.items(), key=lambda _: rng.random())) for x in rows[key]]
    rows = dict(rng.sample(list(rows.items()), len(rows)))
    store(case, rows, indent=rng.choice([None, 0, 4]), ensure_ascii=rng.random() < 0.5)
    case.expect("other order and layout", same, touched=FILE)


@late("coco")
def more_keys(case: Case, rng: random.Random) -> None:
    rows = load(case)
    rows[rng.choice(["info", "licenses", "type", "videos", ""])] = rng.choice(
        [None, [], {}, "a", 1]
    )
    for key in ("images", "annotations", "categories"):
        rng.choice(rows[key])[rng.choice(["license", "x", "supercategory"])] = rng.choice(
            [None, []]
        )
    store(case, rows)
    case.expect("further keys", same, touched=FILE)


@late("coco")
def wrong_lists(case: Case, rng: random.Random) -> None:
    rows = load(case)
    key = rng.choice(["images", "annotations", "categories"])
    value = rng.choice([None, [], {}, "rows", 7, {"1": rows[key][0]}, [[]], ["a"], [None], [7]])
    rows[key] = value
    if rng.random() < 0.2:
        del rows[key]
    store(case, rows)
    case.expect(f"{key} = {value!r}", touched=FILE)


@late("coco")
def one_odd_entry(case: Case, rng: random.Random) -> None:
    rows = load(case)
    key = rng.choice(["images", "annotations", "categories"])
    value = rng.choice([None, [], {}, "row", 7, [[]], True])
    rows[key].insert(rng.randrange(len(rows[key])), value)
    store(case, rows)
    case.expect(f"entry {value!r} in {key}", Option(said=True), touched=FILE, refuse=True)


@late("coco")
def other_top(case: Case, rng: random.Random) -> None:
    rows = load(case)
    value = rng.choice([None, [], [rows], 7, "x", rows["annotations"], {"a": rows}, True])
    store(case, value)
    case.expect(f"the json is a {type(value).__name__}", touched=FILE)


@late("coco")
def entry_removed(case: Case, rng: random.Random) -> None:
    if case.notes:
        return  # what was changed before may go
    rows = load(case)
    kind = rng.choice(["images", "categories", "annotations"])
    if kind == "images":
        name = rows["images"].pop(rng.randrange(4))["file_name"]

        def edit(truth: Truth) -> None:
            del truth.sizes[name], truth.boxes[name]

        said = bool(case.truth.boxes[name])
        case.expect(f"no entry of {name}", Option(edit, said), touched=FILE, refuse=said)
    elif kind == "categories":
        rows["categories"].pop(rng.randrange(3))
        case.expect("a class less", touched=FILE)
    else:
        number = rng.randrange(len(rows["annotations"]))
        rows["annotations"].pop(number)
        names = [name for name, boxes in case.truth.boxes.items() for _ in boxes]
        place = number - names.index(names[number])
        option = Option(gone(names[number], place).edit)
        case.expect("an annotation less", option, touched=FILE)
    store(case, rows)


@late("coco")
def entry_again(case: Case, rng: random.Random) -> None:
    rows = load(case)
    kind = rng.choice(["annotations", "images", "categories", "picture", "orphan"])
    if kind == "annotations":
        name = next(iter(case.truth.boxes))
        rows["annotations"].append(rows["annotations"][0])

        def twice(truth: Truth) -> None:
            if 0 in truth.boxes[name]:
                first = truth.boxes[name][0]
                truth.boxes[name]["again"] = Box(first.label, first.corners, first.crowd)

        case.expect("the first annotation again", Option(twice), Option(said=True), touched=FILE)
    elif kind in ("images", "categories"):
        rows[kind].append(dict(rng.choice(rows[kind])))
        case.expect(f"an entry of {kind} again", Option(said=True), touched=FILE, refuse=True)
    elif kind == "picture":
        first, second = rows["images"][:2]
        first["file_name"] = second["file_name"]
        options = []
        if (first["height"], first["width"]) == (second["height"], second["width"]):
            options = [Option(said=True)]
        case.expect("two entries of different sizes name a picture", *options, touched=FILE)
    else:
        rows["annotations"].append({**rows["annotations"][0], "id": 99, "image_id": 99})
        case.expect("box of no image", Option(said=True), touched=FILE, refuse=True)
    store(case, rows)


@late("coco")
def key_twice(case: Case, rng: random.Random) -> None:
    """In json the last one counts and the first is lost without a word."""
    path = case.root / FILE
    text = path.read_text(encoding="utf-8")
    old, new = rng.choice(
        [
            ('"bbox": ', '"bbox": [1, 2, 3, 4], "bbox": '),
            ('"category_id": ', '"category_id": 8, "category_id": '),
            ('"annotations": ', '"annotations": [], "annotations": '),
            ('"file_name": ', '"file_name": "p01.png", "file_name": '),
            ('"name": ', '"name": "dog", "name": '),
            ('"images": ', '"images": [{}], "images": '),
        ]
    )
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    case.expect(f"{new.split(':')[0]} twice", Option(said=True), touched=FILE, refuse=True)


@late("coco")
def too_deep(case: Case, rng: random.Random) -> None:
    depth = rng.choice([500, 2000, 100_000])
    opened, closed = rng.choice([("[", "]"), ('{"a":', "}")])
    path = case.root / FILE
    value = f'{{"info": {opened * depth}1{closed * depth}, '
    path.write_text(value + path.read_text(encoding="utf-8")[1:], encoding="utf-8")
    case.expect(f"{depth} levels of {opened}", same, touched=FILE, refuse=depth > 500)


@late("coco")
def no_json(case: Case, rng: random.Random) -> None:
    path = case.root / FILE
    text = path.read_text(encoding="utf-8")
    change = rng.choice(
        [
            lambda x: x + x,
            lambda x: x[:-1] + ",}",
            lambda x: "// boxes\n" + x,
            lambda x: x.replace('"', "'"),
            lambda x: x.replace(",", ";", 1),
            lambda x: "var boxes = " + x,
            lambda x: x.replace(":", "", 1),
            lambda x: x.replace('": [', '": [,', 1),
            lambda x: json.dumps(x),
        ]
    )
    path.write_text(change(text), encoding="utf-8")
    case.expect("not quite json", touched=FILE)


@late("coco")
def all_ids_as_text(case: Case, rng: random.Random) -> None:
    rows = load(case)
    what, key = rng.choice([("images", "image_id"), ("categories", "category_id")])
    both = rng.random() < 0.5
    for row in rows[what] if both else ():
        row["id"] = str(row["id"])
    for row in rows["annotations"]:
        if key in row:
            row[key] = str(row[key])
    store(case, rows)
    note = f"{key} as text, in {'both places' if both else 'annotations'}"
    case.expect(note, same, touched=FILE, refuse=not both)
