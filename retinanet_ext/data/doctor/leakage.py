"""Faults between a training and a validation set."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from ...errors import count, listed
from .findings import Fault
from .images import ImageFacts
from .table import DatasetTable

__all__ = ["compare_tables"]


def compare_tables(
    train: DatasetTable, val: DatasetTable, facts: Mapping[str, ImageFacts] | None = None
) -> list[Fault]:
    """Images in both sets, and different classes; the faults are of the training set.

    Args:
        facts: what reading the files found, by path; without it, only the same paths are found.
    """
    facts = facts or {}
    real = _RealPaths()
    by_path = {real(x): x for x in val.files if x}
    by_digest = {facts[x].digest: x for x in val.files if x in facts and facts[x].digest}
    leaks: dict[int, str] = {}
    for row, path in enumerate(train.files):
        if not path:
            continue
        other = by_path.get(real(path))
        if other is None and path in facts and facts[path].digest:
            other = by_digest.get(facts[path].digest)
        if other is not None:
            leaks[row] = other

    def message(row: int) -> str:
        same = real(leaks[row]) == real(train.files[row])
        where = "it is" if same else f"its pixels are those of {leaks[row]}"
        return f"{where} in '{val.name}' too"

    faults = [Fault("leakage", "image", np.array(list(leaks), dtype=np.int64), message)]
    if train.classes_by_name and val.classes_by_name:
        used = {val.class_names[i] for i in np.unique(val.class_of[val.class_of >= 0]).tolist()}
        if only_val := [x for x in val.class_names if x in used and x not in train.class_names]:
            text = (
                f"'{val.name}' has objects of {listed(only_val)}, which its "
                f"{len(train.class_names)} classes ({listed(train.class_names)}) lack; rename them "
                "by DATASETS.MERGE_CLASSES, or leave them out by DATASETS.DROP_CLASSES"
            )
            faults.append(Fault.of_dataset("different_classes", text))
    elif train.class_names != val.class_names:
        text = (
            f"its {count(len(train.class_names), 'class', 'classes')} "
            f"({listed(train.class_names)}) are not the {len(val.class_names)} of '{val.name}' "
            f"({listed(val.class_names)}); the order of their ids counts too"
        )
        faults.append(Fault.of_dataset("different_classes", text))
    return faults


class _RealPaths:
    """Paths with the links of their folders resolved, each folder once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)
