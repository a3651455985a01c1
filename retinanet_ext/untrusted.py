"""Files that someone else wrote: no device that never ends, no yaml that fills the memory."""

from __future__ import annotations

import os
import stat

import yaml

from .errors import InputError, MissingFileError

__all__ = ["YAML_BYTES", "check_regular", "compose_yaml"]

YAML_BYTES = 2**22  # a thousand times a usual config or list of class names
YAML_ENTRIES = 10**6  # after aliases are written out


def check_regular(path: str | os.PathLike[str], most: int | None = None) -> None:
    """Refuse what is no regular file, such as ``/dev/zero`` or a pipe, and too large files.

    Args:
        path: a local file.
        most: bytes that it may have.

    Raises:
        MissingFileError: there is no such file.
        InputError: it is a folder, device or pipe, or larger.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{path} does not exist") from None
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device or pipe"
        raise InputError(f"{path} is {kind}, but must be a file")
    if most is not None and found.st_size > most:
        raise InputError(
            f"{path} has {found.st_size:,} bytes, but at most {most:,} make sense for such a file; "
            "check what it is"
        )


def compose_yaml(path: str | os.PathLike[str], text: str | None = None) -> yaml.Node | None:
    """The nodes of a yaml file, before anything is made of them; None for an empty one.

    Args:
        path: of the file.
        text: its content, where it has been read already.

    Raises:
        InputError: as :func:`check_regular`; or aliases multiply to more than a million entries,
            or the nesting is too deep.
        yaml.YAMLError, UnicodeDecodeError, OSError: it is not yaml, or cannot be read.
    """
    if text is None:
        check_regular(path, YAML_BYTES)
        with open(path, encoding="utf-8") as file:
            text = file.read()
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        size = _written_out(node, {}) if node is not None else 0
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply to be read; check the file") from None
    if size > YAML_ENTRIES:
        raise InputError(
            f"{path}: its aliases (*name) multiply to more than {YAML_ENTRIES:,} entries, which no "
            "such file needs; write it without them"
        )
    return node


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """Entries below a node, those of an alias counted wherever it stands; infinite in a circle."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = YAML_ENTRIES + 1  # until it is known: an alias to a node around itself
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_written_out(x, known) for x in node.value)
    elif isinstance(node, yaml.MappingNode):
        total += sum(_written_out(x, known) for pair in node.value for x in pair)
    known[id(node)] = min(total, YAML_ENTRIES + 1)  # numbers of a bomb have many digits
    return known[id(node)]
