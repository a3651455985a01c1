"""Pascal VOC: difficult objects, lists, images with other names, hostile and broken files."""

from __future__ import annotations

import logging
import os

import pytest

from retinanet_ext.data.formats import Inputs, Source
from retinanet_ext.data.formats.voc import read_voc
from tests.helpers.four_formats import Picture, write

BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><filename>&b;</filename></annotation>"""


@pytest.fixture
def root(tmp_path):
    pictures = [
        Picture("a.png", 40, 30, [("ant", 1, 2, 11, 22), ("bee", 0, 0, 5, 5)]),
        Picture("b.png", 40, 30, [("bee", 3, 3, 9, 9)]),
    ]
    write("voc", tmp_path, pictures, [])
    return tmp_path


def read(root, **fields):
    return read_voc(Source(str(root), format="voc", **fields), Inputs())


def edit(root, old, new, name="a"):
    path = root / "Annotations" / f"{name}.xml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_pixels_counted_from_one_become_edges_from_zero(root):
    assert read(root).boxes[:2].tolist() == [[1, 2, 11, 22], [0, 0, 5, 5]]


def test_coordinates_that_are_edges_stay_as_they_are(root):
    assert read(root, one_based=False).boxes[:2].tolist() == [[2, 3, 11, 22], [1, 1, 5, 5]]


def test_a_coordinate_below_one_is_warned_of(root, caplog):
    edit(root, "<xmin>1<", "<xmin>0<")
    with caplog.at_level(logging.WARNING):
        read(root, one_based=False)
        assert not caplog.messages
        read(root)
    assert ["ONE_BASED: False" in message for message in caplog.messages] == [True]


def test_difficult_objects_are_ignored_regions(root):
    edit(root, "<difficult>0", "<difficult>1", "b")
    assert read(root).crowd.tolist() == [False, False, True]
    assert read(root).records()[1]["annotations"][0]["iscrowd"] == 1


def test_an_object_without_the_difficult_flag_is_an_object(root):
    edit(root, "<difficult>0</difficult>", "", "b")
    assert read(root).crowd.tolist() == [False, False, False]


def test_a_missing_size_is_read_from_the_image(root):
    edit(root, "<width>40</width><height>30</height>", "")
    assert read(root).sizes.tolist() == [[30, 40], [30, 40]]


def test_an_image_is_found_by_the_name_of_its_xml(root):
    edit(root, "<filename>a.png", "<filename>C:\\old\\somewhere.jpg")
    assert read(root).file_names[0] == str(root / "JPEGImages" / "a.png")


def test_boxes_of_parts_are_no_objects(root):
    part = "<part><name>leg</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    edit(root, "</object>", part, "b")
    assert read(root).class_names == ["ant", "bee"]


def test_a_list_names_the_images(root):
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    (folder / "some.txt").write_text("b 1\n\n")
    table = read(folder / "some.txt")
    assert [name[-5:] for name in table.file_names] == ["b.png"]
    (folder / "some.txt").write_text("b\nc\n")
    with pytest.raises(FileNotFoundError, match=r"some\.txt, line 2: there is no .*c\.xml"):
        read(folder / "some.txt")


def test_a_class_file_gives_order_and_limits(root):
    (root / "names.txt").write_text("bee\nant\n")
    table = read(root, classes=str(root / "names.txt"))
    assert (table.class_names, table.classes.tolist()) == (["bee", "ant"], [1, 0, 0])
    (root / "names.txt").write_text("ant\n")
    with pytest.raises(ValueError, match=r"a\.xml, object 2: class 'bee' is not in the list"):
        read(root, classes=str(root / "names.txt"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(root, encoding):
    (root / "Annotations" / "a.xml").write_bytes(BOMB.encode(encoding))
    with pytest.raises(ValueError, match=r"a\.xml: holds a document type definition"):
        read(root)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("</annotation>", "", r"a\.xml is not xml: .*line 1"),
        ("annotation>", "note>", r"a\.xml is not VOC xml: it starts with <note>"),
        ("<xmax>11<", "<xmax>wide<", r"a\.xml, object 1: xmax is 'wide'"),
        ("<xmax>11<", "<xmax>nan<", r"a\.xml, object 1: xmax is 'nan'.*finite"),
        ("<ymin>1</ymin>", "", r"a\.xml, object 2: has no ymin"),
        ("<name>bee</name>", "", r"a\.xml, object 2: has no name"),
        ("bndbox", "box", r"a\.xml, object 1: has no bndbox"),
        ("<width>40", "<width>big", r"a\.xml: width is 'big'"),
    ],
)
def test_errors_name_file_object_and_fault(root, old, new, words):
    edit(root, old, new)
    with pytest.raises(ValueError, match=words):
        read(root)


def test_a_missing_image_is_noted_and_without_all_of_them_nothing_is_read(root):
    (root / "JPEGImages" / "a.png").unlink()
    table = read(root)
    assert table.bad == {str(root / "JPEGImages" / "a.png"): "does not exist (a.xml)"}
    assert [os.path.basename(x) for x in table.file_names] == ["a.png", "b.png"]
    (root / "JPEGImages" / "b.png").rename(root / "JPEGImages" / "of_no_xml.png")
    with pytest.raises(FileNotFoundError, match=r"a\.xml: there is no image 'a\.png'.*any other"):
        read(root)
    (root / "JPEGImages" / "of_no_xml.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no image in .*JPEGImages; say where"):
        read(root)


@pytest.mark.parametrize(
    "text",
    [
        "a\nb\n",
        "\ufeffa\r\nb\r\n",
        "a.png\nb.png\n",
        "Annotations/a.xml\nAnnotations\\b.xml\n",
        "a.png  1\nb -1\na 1\n",  # of one class: the same pictures
        "C:\\cells\\JPEGImages\\a.png\n/home/bob/b.jpg 0\n",
    ],
)
def test_names_in_lists_may_have_folders_suffixes_and_flags(root, text):
    path = root / "ImageSets" / "Main" / "train.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode())
    found = [os.path.basename(name) for name in read(path).file_names]
    assert found == ["a.png", "b.png"]


@pytest.mark.parametrize("name", ["my cell 1", "my cell", "cell. 2"])
def test_names_in_lists_may_have_spaces(root, name):
    (root / "Annotations" / "a.xml").rename(root / "Annotations" / f"{name}.xml")
    (root / "JPEGImages" / "a.png").rename(root / "JPEGImages" / f"{name}.png")
    path = root / "ImageSets" / "Main" / "train.txt"
    path.parent.mkdir(parents=True)
    for line in (name, f"{name}.png", f"{name} -1", f"{name}.png 1"):
        path.write_text(f"{line}\n")
        assert [os.path.basename(x) for x in read(path).file_names] == [f"{name}.png"]
    path.write_text("b\nno such one\n")
    with pytest.raises(FileNotFoundError, match=r"train\.txt, line 2: there is no .*no such one"):
        read(path)


@pytest.mark.parametrize(
    "encoding", ["gbk", "gb2312", "shift_jis", "windows-1251", "utf-16", "big5"]
)
def test_declared_encodings_are_read(root, encoding):
    name = "клетка" if encoding == "windows-1251" else "中"
    path = root / "Annotations" / "a.xml"
    text = path.read_text().replace(">ant<", f">{name}<")
    path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>\n{text}'.encode(encoding))
    assert name in read(root).class_names


@pytest.mark.parametrize(
    "data, words",
    [
        ('<?xml version="1.0" encoding="klingon"?>\n', r"a\.xml: declares the encoding 'klingon'"),
        ('<?xml version="1.0" encoding="gbk"?>\n\udcff', r"a\.xml: declares the encoding 'gbk'"),
        ('<?xml version="1.0" encoding="hex"?>\n', r"a\.xml: declares the encoding 'hex'"),
        ("<!-- \udcd6\udcd0 -->", r"a\.xml is not xml: .*not in UTF-8: save it as UTF-8"),
    ],
)
def test_encodings_that_cannot_be_read_name_the_file(root, data, words):
    path = root / "Annotations" / "a.xml"
    path.write_bytes(data.encode("utf-8", "surrogateescape") + path.read_bytes())
    with pytest.raises(ValueError, match=words):
        read(root)


def test_a_document_type_in_another_encoding_is_refused_too(root):
    text = BOMB.replace('version="1.0"', 'version="1.0" encoding="gbk"')
    (root / "Annotations" / "a.xml").write_bytes(text.encode("gbk"))
    with pytest.raises(ValueError, match="document type definition"):
        read(root)
