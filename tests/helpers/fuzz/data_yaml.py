"""Mutations of YOLO's data.yaml."""

from __future__ import annotations

import random
from typing import Any

import yaml

from tests.helpers.fuzz.case import Case, late
from tests.helpers.fuzz.truth import Option, Truth, same


def _renamed(new: list[str]) -> Option:
    def edit(truth: Truth) -> None:
        names = dict(zip(truth.classes, new, strict=False))
        for boxes in truth.boxes.values():
            for box in boxes.values():
                box.label = names[box.label]
        truth.classes[:] = new

    return Option(edit)


@late("yolo", "yolo")
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
