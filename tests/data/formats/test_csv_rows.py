"""CSV: the keras-retinanet convention, named columns, class files, and broken rows."""

from __future__ import annotations

import pytest

from retinanet_ext.data.formats import Inputs, Source
from retinanet_ext.data.formats.csv_rows import read_csv
from retinanet_ext.data.formats.text import read_class_file
from tests.helpers.four_formats import Picture, write_images

ROWS = "a.png,1,2,11,12,bee\na.png,3,3,9,9.5,ant\nb.png,,,,,\n"


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "images", [Picture("a.png", 40, 30), Picture("b.png", 20, 30)])
    return tmp_path


def read(folder, text, **fields):
    (folder / "rows.csv").write_text(text)
    fields = {"images": str(folder / "images"), **fields}
    return read_csv(Source(str(folder / "rows.csv"), format="csv", **fields), Inputs())


def test_rows_are_boxes_and_a_path_alone_is_a_negative_image(folder):
    table = read(folder, ROWS)
    assert table.boxes.tolist() == [[1, 2, 11, 12], [3, 3, 9, 9.5]]
    assert table.class_names == ["ant", "bee"] and table.classes.tolist() == [1, 0]
    assert table.sizes.tolist() == [[30, 40], [30, 20]] and table.starts.tolist() == [0, 2, 2]


def test_paths_start_from_the_csv_when_no_folder_is_given(folder):
    table = read(
        folder, ROWS.replace("a.png", "images/a.png").replace("b.", "images/b."), images=""
    )
    assert table.file_names == [str(folder / "images" / name) for name in ("a.png", "b.png")]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_columns_may_be_named_in_any_order(folder, mark):
    header = f"{mark}filename,width,height,class,xmin,ymin,xmax,ymax\n"
    table = read(folder, f"{header}a.png,40,30,bee,1,2,11,12\nb.png,,,,,,,\n")
    assert table.boxes.tolist() == [[1, 2, 11, 12]] and len(table) == 2
    assert table.class_names == ["bee"]


def test_quotes_and_spaces_are_read_as_csv(folder):
    (folder / "images" / "a.png").rename(folder / "images" / "a,1.png")
    table = read(folder, '"a,1.png", 1, 2, 11, 12, "big ant"\n\n')
    assert table.class_names == ["big ant"] and len(table.boxes) == 1


def test_rows_of_an_image_need_not_be_together(folder):
    table = read(folder, "a.png,1,1,2,2,x\nb.png,1,1,3,3,x\na.png,1,1,4,4,x\n")
    assert table.boxes[:, 2].tolist() == [2, 4, 3]


@pytest.mark.parametrize(
    "row, words",
    [
        ("a.png,1,2,11,bee", r"rows\.csv, line 2: has 5 fields; a row is path,x1"),
        ("a.png,1,2,x,12,bee", r"line 2: x2 is 'x', but must be a number"),
        ("a.png,1,2,,12,bee", r"line 2: x2 is ''"),
        ("a.png,inf,2,3,12,bee", r"line 2: x1 is 'inf', but must be a finite number"),
        ("a.png,1,2,11,12,", r"line 2: has a box but no class"),
        ("a.png,,,,,bee", r"line 2: x1 is ''"),
        (",1,2,11,12,bee", r"line 2: has no path"),
    ],
)
def test_errors_name_file_line_and_fault(folder, row, words):
    with pytest.raises(ValueError, match=words):
        read(folder, f"a.png,1,2,11,12,bee\n{row}\n")


def test_a_missing_image_is_named_with_its_line(folder):
    with pytest.raises(FileNotFoundError, match=r"rows\.csv, line 1: there is no image .*c\.png"):
        read(folder, "c.png,1,2,11,12,bee\n")


def test_files_without_rows_or_columns_are_refused(folder):
    with pytest.raises(ValueError, match=r"has no rows of path"):
        read(folder, "\n")
    with pytest.raises(ValueError, match=r"line 1: names columns, but none for y2, class"):
        read(folder, "path,x1,y1,x2\n")


def test_class_files_are_sorted_by_id(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text("dog,10\ncat,2\n")
    assert read_class_file(str(path), Inputs()) == ["cat", "dog"]
    path.write_text("dog\ncat\n")
    assert read_class_file(str(path), Inputs()) == ["dog", "cat"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("dog,1\ncat,1\n", r"line 2: id 1 is taken by class 'dog'"),
        ("dog,one\n", r"line 1: id is 'one'"),
        ("dog,1,2\n", r"line 1: has 3 fields"),
        ("dog\ndog\n", r"class 1 is 'dog', which is empty or there before"),
        ("", r"lists no classes"),
    ],
)
def test_broken_class_files_are_named(tmp_path, text, words):
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"classes\.csv.*{words}"):
        read_class_file(str(tmp_path / "classes.csv"), Inputs())


def test_a_class_outside_of_the_file_is_named(folder):
    (folder / "classes.txt").write_text("ant\n")
    with pytest.raises(ValueError, match=r"rows\.csv, line 1: class 'bee' is not in .*\(ant\)"):
        read(folder, ROWS, classes=str(folder / "classes.txt"))
