"""Mutations of the structure and the text of Pascal VOC's xml files."""

from __future__ import annotations

import random
from xml.etree import ElementTree

from tests.helpers.fuzz.case import Case, late
from tests.helpers.fuzz.truth import Box, Option, Truth, gone, same
from tests.helpers.fuzz.voc import CORNERS, bounds_of, store, vary

STRUCTURES = [
    "no bndbox",
    "no name",
    "no corner",
    "corner twice",
    "bndbox twice",
    "name twice",
    "name nested",
    "corner nested",
    "Object",
    "objects",
    "root",
    "no size",
    "parts",
    "further",
    "size twice",
    "removed",
    "again",
    "BNDBOX",
    "two roots",
    "polygon",
    "nested object",
]


@late("voc", "voc")
def structure(case: Case, rng: random.Random) -> None:
    if case.notes:
        return  # what was changed before may go
    picture, place, path, root, element = vary(case, rng)
    bounds, options = bounds_of(element), []
    kind = rng.choice(STRUCTURES)
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
    store(path, root)
    if kind == "two roots":
        path.write_bytes(path.read_bytes() + b"<annotation></annotation>")
    case.expect(
        f"{path.name} object {place + 1}: {kind}", *options, touched=path.name, refuse=refuse
    )


@late("voc")
def xml_text(case: Case, rng: random.Random) -> None:
    _, _, path, root, _ = vary(case, rng)
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
    if case.notes:
        return  # what was changed before may go
    picture, _, path, _, _ = vary(case, rng)
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
    case.touched += ["lost.xml", "other.xml"]
