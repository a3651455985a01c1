"""Which classes of the annotations a model learns: merged, dropped, kept and ordered by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode

from ...errors import InputError, did_you_mean, listed
from ..formats import BoxTable

__all__ = ["ClassRules", "class_map", "resolve_class_names"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassRules:
    """What ``DATASETS.MERGE_CLASSES``, ``DROP_CLASSES`` and ``CLASSES`` say, in this order.

    Attributes:
        merge: old name -> new name.
        drop: names, after merging, whose boxes are left out: background.
        keep: names, after merging, of the model's classes in their order; () for all.
    """

    merge: Mapping[str, str]
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> ClassRules:
        """Read the keys.

        Raises:
            ValueError: they are not lists of names, or contradict each other.
        """
        node = cfg.DATASETS
        merge: dict[str, str] = {}
        for row in node.MERGE_CLASSES:
            if not _is_names(row) or len(row) < 2:
                raise InputError(
                    f"DATASETS.MERGE_CLASSES holds {row!r}; each entry is a list of the new name "
                    "and the old ones: [[cell, RBC, WBC]]"
                )
            for old in row[1:]:
                if merge.setdefault(old, row[0]) != row[0]:
                    raise InputError(
                        f"DATASETS.MERGE_CLASSES merges class '{old}' into '{merge[old]}' and into "
                        f"'{row[0]}'; choose one"
                    )
        for key in ("DROP_CLASSES", "CLASSES"):
            if not _is_names(node[key]) or len(set(node[key])) < len(node[key]):
                raise InputError(
                    f"DATASETS.{key} must be a list of different names, got {node[key]!r}"
                )
        if both := set(node.DROP_CLASSES) & set(node.CLASSES):
            raise InputError(f"DATASETS.CLASSES and DROP_CLASSES both name {sorted(both)}")
        return cls(merge, tuple(node.DROP_CLASSES), tuple(node.CLASSES))

    def new_name(self, name: str) -> str:
        """The name after merging."""
        return self.merge.get(name, name)

    def new_names(self, names: Sequence[str]) -> list[str]:
        """Names after merging and dropping, in the order of their first one."""
        new = dict.fromkeys(self.new_name(name) for name in names)
        return [name for name in new if name not in self.drop]


def resolve_class_names(
    tables: Mapping[str, BoxTable], rules: ClassRules, first: Sequence[str] = ()
) -> dict[str, list[str]]:
    """The classes of each dataset: the same for all, matched by name.

    ``rules.keep`` if it names any. Otherwise the list of the first dataset that has one (VOC and
    CSV have none), or else all names, sorted, so that a class without objects in one of them does
    not move the rest. A dataset may lack classes of that list, have them in another order, and list
    others that it has no objects of.

    Args:
        tables: dataset name -> its annotations.
        first: names of the datasets whose list counts before that of others: those of training.

    Raises:
        ValueError: a rule names a class that is not there, no class is left, or a dataset has
            objects of a class that the list lacks.
    """
    _check_rules_fit(tables, rules)
    names = {name: rules.new_names(table.class_names) for name, table in tables.items()}
    order = [name for name in first if name in tables]
    order += [name for name in tables if name not in order]
    declared = {name: names[name] for name in order if tables[name].declared}
    shared = next(iter(declared.values()), sorted(set().union(*names.values())))
    resolved = {name: list(rules.keep or shared) for name in tables}
    for name, new in names.items():
        if not resolved[name]:
            raise InputError(
                f"dataset '{name}' has no class left ({', '.join(tables[name].class_names)}): see "
                "DATASETS.DROP_CLASSES, or whether there is any object"
            )
        missing = [x for x in new if x not in resolved[name]]
        if missing and rules.keep:
            logger.info("Dataset '%s': left out, not in CLASSES: %s", name, ", ".join(missing))
        elif missing:
            used = _used_names(tables[name], rules)
            if found := [x for x in missing if x in used or not tables[name].declared]:
                raise InputError(
                    f"dataset '{name}' has objects of class '{found[0]}', which is not among the "
                    f"classes of '{next(iter(declared))}' ({listed(resolved[name])}); rename it by "
                    "DATASETS.MERGE_CLASSES, leave it out by DATASETS.DROP_CLASSES, or list all "
                    "classes in DATASETS.CLASSES"
                )
            logger.info(
                "Dataset '%s': left out, as '%s' does not list them and there are no objects: %s",
                name,
                next(iter(declared)),
                listed(missing),
            )
    return resolved


def _used_names(table: BoxTable, rules: ClassRules) -> set[str]:
    """The classes, after merging, that have boxes."""
    return {rules.new_name(table.class_names[i]) for i in np.unique(table.classes).tolist()}


def class_map(table: BoxTable, rules: ClassRules, class_names: Sequence[str]) -> list[int]:
    """New index of each class of ``table``, -1 where its boxes are left out."""
    index = {name: i for i, name in enumerate(class_names)}
    return [index.get(rules.new_name(name), -1) for name in table.class_names]


def _check_rules_fit(tables: Mapping[str, BoxTable], rules: ClassRules) -> None:
    old = {name for table in tables.values() for name in table.class_names}
    new = {rules.new_name(name) for name in old}
    for key, named, known in (
        ("MERGE_CLASSES", rules.merge, old),
        ("DROP_CLASSES", rules.drop, new),
        ("CLASSES", rules.keep, new),
    ):
        for name in named:
            if name in known:
                continue
            like = did_you_mean(name, known - set(named) if key == "CLASSES" else known)
            all_listed = all(table.declared for table in tables.values())
            # A set to evaluate may lack classes of the model, all of which CLASSES lists.
            if (all_listed and (like or key != "CLASSES")) or not set(named) & known:
                raise InputError(
                    f"DATASETS.{key} names class '{name}', which is in no dataset of "
                    f"DATASETS.EXTRA.{like} Known: {', '.join(sorted(known))}"
                )
            logger.warning("DATASETS.%s names class '%s', which no object has", key, name)


def _is_names(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(x, str) and x for x in value)
