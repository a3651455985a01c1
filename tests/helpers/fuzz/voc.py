"""Mutations of Pascal VOC's xml files."""

from __future__ import annotations

import random
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tests.helpers.fuzz.case import Case, content
from tests.helpers.fuzz.truth import Option, Truth, box_becomes, same
from tests.helpers.fuzz.values import BAD_TEXT_NUMBERS, as_written, odd_spelling, random_number

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def xml_of(case: Case, picture: str) -> Path:
    return (case.root / "Annotations" / picture).with_suffix(".xml")


def vary(case: Case, rng: random.Random) -> tuple[str, int, Path, Element, Element]:
    """A picture, the place of a box, its file, its tree, and the box's object."""
    picture, place = case.pick(rng)
    path = xml_of(case, picture)
    root = ElementTree.fromstring(path.read_bytes())
    return picture, place, path, root, root.findall("object")[place]


def store(path: Path, root: Element) -> None:
    path.write_bytes(ElementTree.tostring(root, "utf-8"))


def bounds_of(element: Element) -> Element:
    found = element.find("bndbox")
    assert found is not None
    return found


@content("voc", "voc", "voc")
def coordinate(case: Case, rng: random.Random) -> None:
    picture, place, path, root, element = vary(case, rng)
    bounds = bounds_of(element)
    tag, kind = rng.choice(CORNERS), rng.randrange(3)
    field = bounds.find(tag)
    assert field is not None
    options: list[Option] = []
    if kind == 0:
        field.text = rng.choice([*BAD_TEXT_NUMBERS, "", " "]).replace("\u0000", "?")
    elif kind == 1:
        field.text = odd_spelling(rng, float(field.text or 0))
        options = [same]
    else:
        field.text = as_written(random_number(rng))
        x1, y1, x2, y2 = (float(bounds.findtext(x) or 0) for x in CORNERS)
        corners = (x1 - 1, y1 - 1, x2, y2)
        options = [box_becomes(picture, place, corners, case.truth.sizes[picture])]
    store(path, root)
    refuse = not options or options[0].said or not (field.text or "").isascii()
    note = f"{path.name} object {place + 1}: {tag} = {field.text!r}"
    places = (f"object {place + 1}",)
    case.expect(note, *options, touched=path.name, refuse=refuse, places=places)
    case.touched.append(picture)
    if options and options[0].said:
        case.places.clear()


@content("voc")
def label(case: Case, rng: random.Random) -> None:
    picture, place, path, root, element = vary(case, rng)
    name = element.find("name")
    assert name is not None
    value = rng.choice(
        ["", "  ", "dog", f" {name.text} ", f"\n{name.text}\n", "\u86c7", "12", "None"]
    )
    old, name.text = name.text, value
    store(path, root)

    def edit(truth: Truth) -> None:
        new = value.strip()
        truth.boxes[picture][place].label = new
        used = {box.label for boxes in truth.boxes.values() for box in boxes.values()}
        truth.classes[:] = sorted(used)

    options = [Option(edit)] if value.strip() else []
    if value.strip() == old:
        options = [same]
    note = f"{path.name} object {place + 1}: name = {value!r}"
    case.expect(note, *options, touched=path.name, places=(f"object {place + 1}",))


@content("voc")
def difficult(case: Case, rng: random.Random) -> None:
    picture, place, path, root, element = vary(case, rng)
    flag = element.find("difficult")
    assert flag is not None
    value, what = rng.choice(
        [(x, "no") for x in ("0", "", " 0 ", "False", "no")]
        + [(x, "yes") for x in ("1", "true", " 1\n", "YES")]
        + [(x, "?") for x in ("2", "-1", "maybe", "[0]", "nan", "0 1", "Unspecified", "\uff11")]
    )
    flag.text = value
    store(path, root)

    def edit(truth: Truth) -> None:
        truth.boxes[picture][place].crowd = True

    options = {"no": [same], "yes": [Option(edit)], "?": []}[what]
    note = f"{path.name} object {place + 1}: difficult = {value!r}"
    refuse = not options or len(value) > 1
    case.expect(note, *options, touched=path.name, refuse=refuse, places=(f"object {place + 1}",))


@content("voc")
def size(case: Case, rng: random.Random) -> None:
    picture, _, path, root, _ = vary(case, rng)
    tag = rng.choice(["height", "width"])
    field = root.find(f"size/{tag}")
    assert field is not None
    old = int(field.text or 0)
    value, right = rng.choice(
        [(x, True) for x in ("", "0", f" {old} ", f"{old}.0", f"+{old}")]
        + [(x, False) for x in ("-3", "1", f"{old + 1}", f"{old // 2}", "nan", "inf", "1e300", "x")]
        + [(x, False) for x in (f"{old}.5", "1_0", "9" * 30, "9" * 400, "1e400", f"{old}px")]
    )
    field.text = value
    store(path, root)
    note = f"{path.name}: {tag} = {value[:40]!r}"
    case.expect(note, same, touched=path.name, refuse=not right)
    case.touched.append(picture)


@content("voc")
def file_name(case: Case, rng: random.Random) -> None:
    """The xml belongs to the picture of its own name, whatever is written in it."""
    picture, _, path, root, _ = vary(case, rng)
    field = root.find("filename")
    assert field is not None
    names = [
        "",
        " ",
        "none.png",
        f"C:\\a\\{picture}",
        f"/a/{picture}",
        "..",
        "p03.png",
        "\u86c7.jpg",
    ]
    field.text = rng.choice([*names, picture.upper(), Path(picture).stem, "a" * 300])
    store(path, root)
    case.expect(f"{path.name}: filename = {field.text[:40]!r}", same, touched=path.name)
