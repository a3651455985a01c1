"""Text files of any tool are read, or named with the line that cannot be."""

from __future__ import annotations

import pytest

from retinanet_ext.data.formats.plain_text import read_bytes, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_no_text(encoding, tmp_path):
    (tmp_path / "a.txt").write_bytes("клетка\n中\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "клетка\n中\n"


@pytest.mark.parametrize(
    "data, words",
    [
        ("a\n中\n".encode("gbk"), r"a\.txt, line 2: is not UTF-8 text; save the file as UTF-8"),
        (b"a\nb\0c", r"a\.txt, line 2: holds a zero byte"),
        ("a".encode("utf-16-le"), r"line 1: holds a zero byte"),
    ],
)
def test_other_encodings_name_file_and_line(data, words, tmp_path):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        read_text(tmp_path / "a.txt")


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    with open(tmp_path / "a.txt", "wb") as file:
        file.truncate(2**40)  # takes no space
    with pytest.raises(ValueError, match=r"a\.txt has 1,099,511,627,776 bytes, but at most"):
        read_bytes(tmp_path / "a.txt")
