"""A config key: its default, what it may be, and which choice of another key reads it.

:data:`KEYS` holds all that this package adds, and rules for some of Detectron2's. Adding keys to a
config, validation, and the fix in an error message all come from there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode

from ...errors import InputError, did_you_mean

__all__ = ["KEYS", "NOT_ADDED", "Key", "Section", "as_lists", "check_keys", "differ"]

NOT_ADDED = object()
"""Default of a :class:`Key` of Detectron2's: there are rules for it, and nothing to add."""


@dataclass(frozen=True)
class Key:
    """One config key.

    Attributes:
        name: full, such as ``"MODEL.RETINANET.NMS_KIND"``.
        default: its value in a new config, whose type is the key's; None: any type.
        choices: what the value may be; empty: anything. Of a list, what each element may be, and
            none of them twice.
        at_least, above, at_most, below: bounds of a number; None: none.
        only_with: (another key, its value, or a tuple of some): nothing else reads this key. The
            other key by its full name, or by its last part where it is in the same section.
        meaning: what the number is, for the message about one that is out of bounds.
    """

    name: str
    default: Any = NOT_ADDED
    choices: Sequence[Any] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    only_with: tuple[str, Any] | None = None
    meaning: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices or ()))
        if self.only_with is not None and "." not in self.only_with[0]:
            section = self.name.rpartition(".")[0]
            object.__setattr__(
                self, "only_with", (f"{section}.{self.only_with[0]}", self.only_with[1])
            )

    def check(self, value: Any) -> None:
        """Raise InputError, with the fix, unless this key may have ``value``."""
        self._check_type(value)
        if self.choices and isinstance(value, (list, tuple)):
            self._check_list(value)
        elif self.choices and value not in self.choices:
            raise InputError(f"{self.name} is {value!r}; {self._fix(value)}")
        if self._bounds() and not self._is_within(value):
            meaning = f": {self.meaning}" if self.meaning else ""
            raise InputError(f"{self.name} must be {self._bounds()}, got {value!r}{meaning}")

    def check_read(self, values: Mapping[str, Any], default: Any) -> list[str]:
        """Raise InputError if the key differs from ``default`` and nothing reads it.

        Args:
            values: of all keys, by full name.
            default: of this one.

        Returns:
            Instead of the error, a warning for a key of Detectron2's that a switch turns off: a
            file may have set both, and the command line the switch.
        """
        if self.only_with is None or self.name not in values:
            return []
        chooser, choice = self.only_with
        choices = choice if isinstance(choice, tuple) else (choice,)
        value, chosen = values[self.name], values.get(chooser, choices[0])
        if chosen in choices or not differ(value, default):
            return []
        if choice is True:
            message = (
                f"{self.name} is {value!r}, but without {chooser} nothing reads it; set {chooser} "
                "True"
            )
            if self.default is NOT_ADDED:
                return [message]
            raise InputError(message)
        raise InputError(
            f"{self.name} is {value!r}, but {chooser.rpartition('.')[2]} is '{chosen}', which does "
            f"not read it; set {chooser} to {' or '.join(map(str, choices))}, or remove "
            f"{self.name.rpartition('.')[2]}"
        )

    def _check_type(self, value: Any) -> None:
        kind = type(self.default)
        if self.default is NOT_ADDED or self.default is None:
            return
        # bool is an int in Python, but no number of anything.
        if isinstance(value, kind) and not (isinstance(value, bool) and kind is int):
            return
        both_lists = kind in (list, tuple) and isinstance(value, (list, tuple))
        whole = kind is float and isinstance(value, int) and not isinstance(value, bool)
        if not both_lists and not whole:
            names = {bool: "True or False", int: "a whole number", float: "a number", str: "a word"}
            raise InputError(
                f"{self.name} is {value!r}; set it to {names.get(kind, 'a list')}, as in its "
                f"default {self.default!r}"
            )

    def _check_list(self, value: Sequence[Any]) -> None:
        for element in value:
            if element not in self.choices:
                raise InputError(f"{self.name} has {element!r}; {self._fix(element, 'some')}")
        if len(set(value)) < len(value):
            raise InputError(f"{self.name} is {value!r}, which names one twice; keep one of them")

    def _fix(self, value: Any, how_many: str = "one") -> str:
        known = ", ".join(str(x) if x else repr(x) for x in self.choices)
        hint = did_you_mean(str(value), [str(x) for x in self.choices if x])
        return f"set it to {how_many} of {known}.{hint}"

    def _is_within(self, value: Any) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def _bounds(self) -> str:
        """The bounds in words; "" without any."""
        low = self.at_least if self.above is None else self.above
        high = self.at_most if self.below is None else self.below
        if low is not None and high is not None:
            start, end = "[" if self.above is None else "(", "]" if self.below is None else ")"
            return f"in {start}{low}, {high}{end}"
        if self.above is not None:
            return "positive" if self.above == 0 else f"above {self.above}"
        if self.at_least is not None:
            return f"at least {self.at_least}"
        if high is not None:
            return f"at most {high}" if self.below is None else f"below {high}"
        return ""


KEYS: dict[str, Key] = {}
"""All keys that there are rules for, by full name, in the order of their definition."""


class Section:
    """Defines the keys of one node of the config in :data:`KEYS`."""

    def __init__(self, name: str = ""):
        """
        Args:
            name: of the node, such as ``"MODEL.RETINANET"``; "" is the config itself.
        """
        self._prefix = f"{name}." if name else ""

    def add(self, key: str, default: Any, **rules: Any) -> None:
        """Define a key of this package.

        Args:
            key: its name within the section.
            default: see :class:`Key`.
            rules: further attributes of :class:`Key`.
        """
        name = f"{self._prefix}{key}"
        if name in KEYS:
            raise InputError(f"config key '{name}' is defined twice; remove one definition")
        KEYS[name] = Key(name, default, **rules)

    def rule(self, key: str, **rules: Any) -> None:
        """Define what a key of Detectron2's may be; arguments as for :meth:`add`."""
        self.add(key, NOT_ADDED, **rules)


def check_keys(cfg: CfgNode, *names: str) -> None:
    """Raise InputError for a key among ``names`` whose value is impossible.

    Args:
        cfg: the config.
        names: full names of keys in :data:`KEYS`.
    """
    for name in names:
        KEYS[name].check(find(cfg, name))


def find(cfg: CfgNode, name: str) -> Any:
    """The value of a key by its full name."""
    for part in name.split("."):
        cfg = cfg[part]
    return cfg


def add_key(cfg: CfgNode, key: Key) -> None:
    """Add a key to ``cfg`` with its default, and its sections; one that exists keeps its value."""
    *sections, last = key.name.split(".")
    for section in sections:
        if section not in cfg:
            cfg[section] = CfgNode()
        cfg = cfg[section]
    if last not in cfg:
        cfg[last] = copy.deepcopy(key.default)


def differ(value: Any, default: Any) -> bool:
    """Whether two values of a key differ; yaml knows no tuples, so lists equal tuples."""
    return as_lists(value) != as_lists(default)


def as_lists(value: Any) -> Any:
    """``value`` with lists in place of tuples."""
    return [as_lists(v) for v in value] if isinstance(value, (list, tuple)) else value
