"""Text of annotation files: whatever wrote it, whole and in memory, or a sentence."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import yaml
from detectron2.utils.file_io import PathManager

from ...errors import InputError, one_line
from ...untrusted import check_regular

__all__ = ["DataYamlLoader", "read_bytes", "read_json", "read_text", "read_xml"]

MOST_BYTES = 2**28  # of a list, a label file or an xml; real ones have a thousandth of it
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_bytes(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """The content of a regular file; a device or pipe would never end.

    Raises:
        ValueError: the path is no regular file, or one of more than ``most`` bytes.
        OSError: it cannot be read.
    """
    check_regular(path, most)
    with open(path, "rb") as file:
        return file.read()


def read_text(path: str | os.PathLike[str], most: int = MOST_BYTES) -> str:
    """The text of a file in UTF-8, or in UTF-16 where a byte order mark says so.

    Raises:
        ValueError: as :func:`read_bytes`, or it is in another encoding; names file and line.
        OSError: it cannot be read.
    """
    data = read_bytes(path, most)
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: is not UTF-8 text; save the file as UTF-8"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(
            f"{path}, line {line}: holds a zero byte, so it is no text; check the file"
        )
    return text


def read_json(path: str, shrink: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The content of a json file.

    Args:
        path: anything that ``PathManager`` can open.
        shrink: called with each object, gives what is kept of it.

    Raises:
        ValueError: it is no json, is nested too deeply, or has an object with the same key twice,
            of which Python would keep the last one without a word.
        OSError: it cannot be read.
    """

    def collect(pairs: list[tuple[str, Any]]) -> Any:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            simple = [(k, v) for k, v in pairs if k != twice and isinstance(v, str | int)]
            where = f" with {simple[0][0]} {simple[0][1]!r}" if simple else ""
            raise _Twice(
                f"an object{where} has the key '{twice}' twice, and which of them is right cannot "
                "be known; remove one"
            )
        return shrink(found) if shrink else found

    try:
        with PathManager.open(path, "r", encoding="utf-8-sig") as file:
            return json.load(file, object_pairs_hook=collect)
    except _Twice as error:
        raise InputError(f"{path}: {error}") from None
    except RecursionError:
        raise InputError(f"{path} is not json: its lists are nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path} is not json: {one_line(error)}") from error


class _Twice(Exception):
    """A key that stands twice in an object."""


def read_xml(path: str | os.PathLike[str]) -> ElementTree.Element:
    """The root of an xml in whatever encoding it declares; entities are not read.

    Raises:
        ValueError: it is no xml, or declares entities.
        OSError: it cannot be read.
    """
    data = read_bytes(path)
    # Annotations need no entities, and those of a hostile file can fill the memory (Expat limits
    # them itself from 2.4.1 on). Without the zeros, this also finds them in UTF-16.
    text = _decoded(path, data)
    if b"<!DOCTYPE" in data.replace(b"\0", b"").upper() or "<!DOCTYPE" in text.upper():
        raise InputError(f"{path}: holds a document type definition, which is not read; remove it")
    try:
        return ElementTree.fromstring(text or data)
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not xml: {error}{_hint(data)}") from error


def _decoded(path: str | os.PathLike[str], data: bytes) -> str:
    """The text of an xml in an encoding that Expat does not know, such as gbk; "" of others.

    Raises:
        ValueError: Python does not know it either, or the bytes are not in it.
    """
    declared = _DECLARATION.match(data)
    encoding = declared.group(1).decode() if declared else "utf-8"
    if encoding.lower() in ("utf-8", "utf8", "utf-16", "us-ascii", "ascii", "iso-8859-1"):
        return ""  # also with a byte order mark
    try:
        text = data.decode(encoding)
    except (LookupError, ValueError):
        raise InputError(
            f"{path}: declares the encoding '{encoding}', which Python does not know or its bytes "
            "are not in; save it as UTF-8, and declare that"
        ) from None
    return text[text.index("?>") + 2 :]  # of a text, no encoding may be declared


_DECLARATION = re.compile(rb"""\s*<\?xml[^>]*\bencoding\s*=\s*["']([\w.:-]+)["'][^>]*\?>""")


def _hint(data: bytes) -> str:
    """What to do where the encoding is at fault."""
    try:
        data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    except UnicodeDecodeError:
        return "; it declares no encoding and is not in UTF-8: save it as UTF-8"
    return ""


class DataYamlLoader(yaml.SafeLoader):
    """``yaml.SafeLoader`` that keeps what yaml would change or lose without a word.

    A number in another spelling than Python's (``010`` is eight to yaml, ``1_0`` ten, ``1:30``
    ninety) and a date stay texts. A key that stands twice raises, where yaml takes the last one.
    """


def _int(loader: DataYamlLoader, node: yaml.ScalarNode) -> Any:
    number = loader.construct_yaml_int(node)
    return number if str(number) == node.value else str(node.value)


def _text(loader: DataYamlLoader, node: yaml.ScalarNode) -> str:
    return str(node.value)


def _mapping(loader: DataYamlLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    known: dict[Any, yaml.Node] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name = key.tag, key.value
        if name in known:
            raise yaml.constructor.ConstructorError(
                "while reading keys and values",
                node.start_mark,
                f"found the key '{key.value}' twice",
                key.start_mark,
            )
        known[name] = key
    return loader.construct_mapping(node, deep=True)


DataYamlLoader.add_constructor("tag:yaml.org,2002:int", _int)
DataYamlLoader.add_constructor("tag:yaml.org,2002:timestamp", _text)
DataYamlLoader.add_constructor("tag:yaml.org,2002:map", _mapping)
