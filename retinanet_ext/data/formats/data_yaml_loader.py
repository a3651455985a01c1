"""Yaml as a data.yaml means it: names of classes as they are written, and no key twice."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["DataYamlLoader"]


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
