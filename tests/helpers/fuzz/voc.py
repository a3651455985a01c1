"""Mutations of Pascal VOC's xml files."""

from __future__ import annotations

import random
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tests.helpers.fuzz.case import Case, content, late
from tests.helpers.fuzz.truth import Box, Option, Truth, box_becomes, gone, same
from tests.helpers.fuzz.values import BAD_TEXT_NUMBERS, as_written, odd_spelling, random_number

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def xml_of(case: Case, picture: str) -> Path:
    return (case.root / "Annotations" / picture).with_suffix(".xml")


def _vary(case: Case, rng: random.Random) -> tuple[str, int, Path, Element, Element]:
    """A picture, the place of a box, its file, its tree, and the box's object."""
    picture, place = case.pick(rng)
    path = xml_of(case, picture)
    root = ElementTree.fromstring(path.read_bytes())
    return picture, place, path, root, root.findall("object")[place]


def _store(path: Path, root: Element) -> None:
    path.write_bytes(ElementTree.tostring(root, "utf-8"))


def _bounds(element: Element) -> Element:
    found = element.find("bndbox")
    assert found is not None
    return found


@content("voc")
@content("voc")
@content("voc")
def coordinate(case: Case, rng: random.Random) -> None:
    picture, place, path, root, element = _vary(case, rng)
    bounds = _bounds(element)
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
    _store(path, root)
    refuse = not options or options[0].said or not (field.text or "").isascii()
    note = f"{path.name} object {place + 1}: {tag} = {field.text!r}"
    places = (f"object {place + 1}",)
    case.expect(note, *options, touched=path.name, refuse=refuse, places=places)
    case.touched.append(picture)
    if options and options[0].said:
        case.places.clear()


@content("voc")
def label(case: Case, rng: random.Random) -> None:
    picture, place, path, root, element = _vary(case, rng)
    name = element.find("name")
    assert name is not None
    value = rng.choice(
        ["", "  ", "dog", f" {name.text} ", f"\n{name.text}\n", "\u86c7", "12", "None"]
    )
    old, name.text = name.text, value
    _store(path, root)

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
    picture, place, path, root, element = _vary(case, rng)
    flag = element.find("difficult")
    assert flag is not None
    value, what = rng.choice(
        [(x, "no") for x in ("0", "", " 0 ", "False", "no")]
        + [(x, "yes") for x in ("1", "true", " 1\n", "YES")]
        + [(x, "?") for x in ("2", "-1", "maybe", "[0]", "nan", "0 1", "Unspecified", "\uff11")]
    )
    flag.text = value
    _store(path, root)

    def edit(truth: Truth) -> None:
        truth.boxes[picture][place].crowd = True

    options = {"no": [same], "yes": [Option(edit)], "?": []}[what]
    note = f"{path.name} object {place + 1}: difficult = {value!r}"
    refuse = not options or len(value) > 1
    case.expect(note, *options, touched=path.name, refuse=refuse, places=(f"object {place + 1}",))


@content("voc")
def size(case: Case, rng: random.Random) -> None:
    picture, _, path, root, _ = _vary(case, rng)
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
    _store(path, root)
    note = f"{path.name}: {tag} = {value[:40]!r}"
    case.expect(note, same, touched=path.name, refuse=not right)
    case.touched.append(picture)


@content("voc")
def file_name(case: Case, rng: random.Random) -> None:
    """The xml belongs to the picture of its own name, whatever is written in it."""
    picture, _, path, root, _ = _vary(case, rng)
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
    _store(path, root)
    case.expect(f"{path.name}: filename = {field.text[:40]!r}", same, touched=path.name)


@late("voc")
@late("voc")
def structure(case: Case, rng: random.Random) -> None:
    if not case.accepted:
        return  # what is at fault may go
    picture, place, path, root, element = _vary(case, rng)
    bounds, options = _bounds(element), []
    kind = rng.choice(
        ["no bndbox", "no name", "no corner", "corner twice", "bndbox twice", "name twice"]
        + [
            "name nested",
            "corner nested",
            "Object",
            "objects",
            "root",
            "no size",
            "parts",
            "further",
        ]
        + ["size twice", "removed", "again", "BNDBOX", "two roots", "polygon", "nested object"]
    )
    refuse = True
    if kind == "no bndbox":
        element.remove(bounds)
    elif kind == "polygon":
        element.remove(bounds)
        ElementTree.SubElement(element, "polygon").text = "1,2 3,4"
    elif kind == "no name":
        element.remove(element.find("name"))  # type: ignore[arg-type]
    elif kind == "no corner":
        bounds.remove(bounds[rng.randrange(4)])
    elif kind == "corner twice":
        ElementTree.SubElement(bounds, rng.choice(CORNERS)).text = "7"
    elif kind == "bndbox twice":
        other = ElementTree.SubElement(element, "bndbox")
        for tag in CORNERS:
            ElementTree.SubElement(other, tag).text = "7"
    elif kind == "name twice":
        ElementTree.SubElement(element, "name").text = "dog"
    elif kind == "name nested":
        name = element.find("name")
        assert name is not None
        ElementTree.SubElement(name, "b").text, name.text = name.text, None
    elif kind == "corner nested":
        ElementTree.SubElement(bounds[0], "b").text, bounds[0].text = bounds[0].text, None
    elif kind in ("Object", "BNDBOX"):
        changed = element if kind == "Object" else bounds
        changed.tag = kind
        options = [same]
    elif kind == "objects":
        inner = ElementTree.SubElement(root, "objects")
        for x in root.findall("object"):
            root.remove(x)
            inner.append(x)
        options = [same]
    elif kind == "nested object":
        root.remove(element)
        root.findall("object")[0].append(element)
    elif kind == "root":
        root.tag = rng.choice(["Annotation", "annotations", "xml", "{http://a}annotation"])
    elif kind == "no size":
        root.remove(root.find("size"))  # type: ignore[arg-type]
        options, refuse = [same], False
    elif kind == "size twice":
        ElementTree.SubElement(ElementTree.SubElement(root, "size"), "width").text = "7"
        options = [same]
    elif kind == "parts":
        part = ElementTree.SubElement(element, "part")
        ElementTree.SubElement(part, "name").text = "head"
        part.append(bounds)
        element.remove(bounds)
        element.append(ElementTree.fromstring(ElementTree.tostring(bounds)))
        options, refuse = [same], False
    elif kind == "further":
        for tag in ("pose", "truncated", "occluded", "x", "attributes"):
            ElementTree.SubElement(element, tag, {"a": "b"}).text = rng.choice([None, "1", "?"])
        ElementTree.SubElement(root, "source").text = "x"
        options, refuse = [same], False
    elif kind == "removed":
        root.remove(element)
        options, refuse = [Option(gone(picture, place).edit)], False
    elif kind == "again":
        root.append(root.findall("object")[0])

        def again(truth: Truth) -> None:
            if 0 in truth.boxes[picture]:
                first = truth.boxes[picture][0]
                truth.boxes[picture]["again"] = Box(first.label, first.corners, first.crowd)

        options, refuse = [Option(again), Option(said=True)], False
    _store(path, root)
    if kind == "two roots":
        path.write_bytes(path.read_bytes() + b"<annotation></annotation>")
    case.expect(
        f"{path.name} object {place + 1}: {kind}", *options, touched=path.name, refuse=refuse
    )


@late("voc")
def xml_text(case: Case, rng: random.Random) -> None:
    picture, _, path, root, _ = _vary(case, rng)
    text = ElementTree.tostring(root, "unicode")
    comment = "<!-- <object><name>dog</name></object> -->"
    new, right = rng.choice(
        [
            (f'<?xml version="1.0" encoding="utf-8"?>\n{comment}{text}\n', True),
            (text.replace("<name>", "<name><![CDATA[").replace("</name>", "]]></name>"), True),
            (text.replace("<name>a", "<name>&#97;"), True),
            (text.replace("<xmin>", f"<xmin>{comment}", 1), True),
            (text.replace("<annotation>", "<annotation xmlns:x='http://x' verified='yes'>"), True),
            (text.replace("<annotation>", "<annotation xmlns='http://x'>"), None),
            (text.replace("<object>", "<object xmlns='http://x'>", 1), None),
            (text.replace("<bndbox>", "<bndbox xmlns='http://x'>", 1), None),
            (text.replace("<name>", "<name>&x;", 1), False),
            (text.replace("<name>", "<name>a & b", 1), False),
            (f"<!DOCTYPE annotation [<!ENTITY a 'b'>]>{text}", None),
            (text.replace("</object>", "", 1), False),
            (text.replace("</name>", "</Name>", 1), False),
            (f'<?xml version="1.1"?>{text}', None),
            (f" \n<?xml version='1.0'?>{text}", False),
            (text + "x", False),
            (f"<a>{text}</a>", False),
            (text.replace("<object>", "&lt;object>", 1), False),
            ("<x>" * 100_000 + text, False),
            (text.replace("<size>", "<x>" * 50_000 + "</x>" * 50_000 + "<size>"), None),
        ]
    )
    path.write_text(new, encoding="utf-8")
    options = [] if right is False else [same]
    place = next((i for i, (a, b) in enumerate(zip(text, new, strict=False)) if a != b), 0)
    note = f"{path.name}: ...{new[max(0, place - 15) : place + 30]!r}"
    case.expect(note, *options, touched=path.name, refuse=not right)


@late("voc")
def xml_file(case: Case, rng: random.Random) -> None:
    if not case.accepted:
        return  # what is at fault may go
    picture, _, path, _, _ = _vary(case, rng)
    kind = rng.choice(["renamed", "removed", "folder", "loop", "upper", "extra"])
    options: list[Option] = []
    if kind == "renamed":
        path.rename(path.with_name("other.xml"))
        options = [same]
    elif kind == "removed":
        path.unlink()

        def edit(truth: Truth) -> None:
            del truth.sizes[picture], truth.boxes[picture]

        options = [Option(edit)]
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "loop":
        path.unlink()
        path.symlink_to(path)
    elif kind == "upper":
        path.rename(path.with_suffix(".XML"))
        options = [same]
    else:
        path.with_name("lost.xml").write_bytes(
            path.read_bytes().replace(b"<filename>p", b"<filename>q")
        )
    case.expect(f"{path.name}: {kind}", *options, touched=path.name)
    case.touched.append("lost.xml")
