"""Mutations of a COCO json."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

from tests.helpers.fuzz.case import Case, content
from tests.helpers.fuzz.truth import Box, Option, Truth, box_becomes, gone, in_image, same
from tests.helpers.fuzz.values import BAD_NUMBERS, odd_spelling, random_number

FILE = "boxes.json"
MISSING = object()


def load(case: Case) -> dict[str, Any]:
    return json.loads((case.root / FILE).read_text(encoding="utf-8"))


def store(case: Case, value: Any, **options: Any) -> None:
    (case.root / FILE).write_text(json.dumps(value, **options), encoding="utf-8")


def put(row: dict[str, Any], key: str, value: Any) -> None:
    if value is MISSING:
        del row[key]
    else:
        row[key] = value


def _row(case: Case, rows: dict[str, Any], picture: str, place: int) -> dict[str, Any]:
    """The annotation at a place of a picture, as the template has them."""
    before = 0
    for name, boxes in case.truth.boxes.items():
        if name == picture:
            return rows["annotations"][before + place]
        before += len(boxes)
    raise KeyError(picture)


def vary(
    case: Case,
    rng: random.Random,
    change: Callable[[dict, str, int], tuple[str, list[Option], bool]],
) -> None:
    """Change one annotation by ``change(row, picture, place) -> note, options, may refuse``."""
    picture, place = case.pick(rng)
    rows = load(case)
    row = _row(case, rows, picture, place)
    places = (f"annotation {row.get('id')}", picture)
    note, options, refuse = change(row, picture, place)
    store(case, rows)
    case.expect(
        f"{picture} box {place}: {note}", *options, touched=FILE, refuse=refuse, places=places
    )


@content("coco", "coco")
def bbox_number(case: Case, rng: random.Random) -> None:
    def change(row: dict, picture: str, place: int) -> tuple[str, list[Option], bool]:
        k, kind = rng.randrange(4), rng.randrange(3)
        if kind == 0:
            value = rng.choice(BAD_NUMBERS)
            row["bbox"][k] = value
            return f"bbox[{k}] = {value!r}", [gone(picture, place)], True
        if kind == 1:
            value = odd_spelling(rng, row["bbox"][k])
            row["bbox"][k] = value
            return f"bbox[{k}] = {value!r}", [same], True
        value = random_number(rng)
        row["bbox"][k] = value
        x, y, w, h = row["bbox"]
        option = box_becomes(picture, place, (x, y, x + w, y + h), case.truth.sizes[picture])
        return f"bbox[{k}] = {value!r}", [option], option.said

    vary(case, rng, change)


@content("coco")
def bbox_whole(case: Case, rng: random.Random) -> None:
    def change(row: dict, picture: str, place: int) -> tuple[str, list[Option], bool]:
        box = row["bbox"]
        value = rng.choice(
            [
                MISSING,
                None,
                [],
                box[:3],
                [*box, 1],
                [box],
                " ".join(map(str, box)),
                "abcd",
                7,
                True,
                {"x": 1, "y": 2, "w": 3, "h": 4},
                dict(zip("abcd", box, strict=True)),
                {},
                [[1]] * 4,
            ]
        )
        put(row, "bbox", value)
        return f"bbox = {value!r}", [gone(picture, place)], True

    vary(case, rng, change)


@content("coco")
def category(case: Case, rng: random.Random) -> None:
    def change(row: dict, picture: str, place: int) -> tuple[str, list[Option], bool]:
        old = row["category_id"]
        value = rng.choice(
            [
                MISSING,
                None,
                True,
                [],
                [old],
                {},
                -1,
                0,
                1,
                99,
                2**63,
                10**400,
                math.nan,
                math.inf,
                float(old),
                str(old),
                f" {old}",
                "ant",
                "",
                old + 0.5,
                "02",
                2,
                5,
                8,
            ]
        )
        put(row, "category_id", value)
        note = f"category_id = {value!r}"
        if type(value) is int and value in (2, 5, 8):
            label = case.truth.classes[(value - 2) // 3]

            def edit(truth: Truth) -> None:
                truth.boxes[picture][place].label = label

            return note, [Option(edit)], False
        alike = isinstance(value, str | float) and str(value).strip() in (str(old), f"{old}.0")
        return note, [gone(picture, place), *([same] if alike else [])], True

    vary(case, rng, change)


@content("coco")
def image_id(case: Case, rng: random.Random) -> None:
    def change(row: dict, picture: str, place: int) -> tuple[str, list[Option], bool]:
        old = row["image_id"]
        value = rng.choice(
            [
                MISSING,
                None,
                True,
                [],
                [old],
                {},
                -1,
                0,
                99,
                2**63,
                10**400,
                math.nan,
                math.inf,
                float(old),
                str(old),
                picture,
                "",
                old + 0.5,
                1,
                2,
                3,
                4,
            ]
        )
        put(row, "image_id", value)
        note = f"image_id = {value!r}"
        if type(value) is int and 1 <= value <= 4:
            other = sorted(case.truth.sizes)[value - 1]
            box, said = in_image(case.truth.boxes[picture][place].corners, case.truth.sizes[other])

            def edit(truth: Truth) -> None:
                moved = truth.boxes[picture].pop(place, None)
                if moved is not None and box is not None:
                    truth.boxes[other][(picture, place)] = Box(moved.label, box, moved.crowd)

            return note, [Option(edit, said)], False
        alike = value in (float(old), str(old)) and not isinstance(value, bool)
        return note, [gone(picture, place), *([same] if alike else [])], True

    vary(case, rng, change)


@content("coco")
def flag(case: Case, rng: random.Random) -> None:
    def change(row: dict, picture: str, place: int) -> tuple[str, list[Option], bool]:
        key = rng.choice(["iscrowd", "iscrowd", "ignore"])
        value, what = rng.choice(
            [(x, "no") for x in (0, False, None, "0", "false", "No", "", 0.0, -0.0)]
            + [(x, "yes") for x in (1, True, "1", "true", "YES", 1.0)]
            + [
                (x, "?")
                for x in (2, -1, "maybe", [], [0], {}, math.nan, 0.5, "-1", "null", 10**400)
            ]
        )
        row[key] = value

        def edit(truth: Truth) -> None:
            truth.boxes[picture][place].crowd = True

        options = {"no": [same], "yes": [Option(edit)], "?": []}[what]
        return f"{key} = {value!r}", options, not options or not isinstance(value, bool | int)

    vary(case, rng, change)
