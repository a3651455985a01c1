"""What yaml allows and a config file must not have: keys twice, a circle of bases, no content."""

from __future__ import annotations

import os
from collections.abc import Iterator

import yaml

from ..errors import ConfigError, InputError
from ..untrusted import compose_yaml

__all__ = ["check_yaml_files"]

BASE = "_BASE_"


def check_yaml_files(path: str, _above: tuple[str, ...] = ()) -> None:
    """Check a config file and the ``_BASE_`` files below it; those with an address are not read.

    Raises:
        InputError: a file is empty, holds something else than keys, names a key twice, or its
            bases lead back to it.
        ConfigError: ``_BASE_`` is misspelt.
        yaml.YAMLError, OSError: a file is not yaml, or cannot be read.
    """
    place = os.path.realpath(path)
    if place in _above:
        raise InputError(
            f"config file '{path}' is its own _BASE_, directly or by way of others; take the line "
            "_BASE_ out of one of them"
        )
    node = compose_yaml(path)
    if not isinstance(node, yaml.MappingNode):
        what = "is empty" if node is None else "holds no keys with values"
        raise InputError(
            f"config file '{path}' {what}; write keys as in 'SOLVER:' and, indented below it, "
            "'BASE_LR: 0.01'"
        )
    _refuse_twice(path, node)
    for base in _bases(path, node):
        if not base.startswith(("https://", "http://")):
            base = os.path.join(os.path.dirname(path), os.path.expanduser(base))
            check_yaml_files(base, (*_above, place))


def _bases(path: str, node: yaml.MappingNode) -> Iterator[str]:
    for key, value in node.value:
        name = str(key.value)
        if name != BASE and name.strip("_").upper() == "BASE":
            raise ConfigError(
                f"config file '{path}' has the key '{name}' in line {key.start_mark.line + 1}; "
                f"write {BASE}, with one underscore on each side"
            )
        if name != BASE:
            continue
        rows = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for row in rows:
            if not isinstance(row, yaml.ScalarNode) or not row.value:
                raise InputError(
                    f"config file '{path}' has no file name after {BASE} in line "
                    f"{key.start_mark.line + 1}; give the path of the config it is based on"
                )
            yield row.value


def _refuse_twice(path: str, node: yaml.MappingNode) -> None:
    """Raise InputError for a key that stands twice in one section: yaml takes the last one."""
    waiting: list[tuple[str, yaml.Node]] = [("", node)]
    seen: set[int] = set()  # aliases lead to one node from many places
    while waiting:
        prefix, section = waiting.pop()
        if not isinstance(section, yaml.MappingNode) or id(section) in seen:
            continue
        seen.add(id(section))
        lines: dict[str, int] = {}
        for key, value in section.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines and name != "<<":
                raise InputError(
                    f"config file '{path}' has {prefix}{name} twice, in lines {lines[name]} and "
                    f"{line}, of which the first would be ignored; make one of them"
                )
            lines[name] = line
            waiting.append((f"{prefix}{name}.", value))
