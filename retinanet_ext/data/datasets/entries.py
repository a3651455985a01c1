"""The entries of ``DATASETS.EXTRA``: what a config says of a dataset that it names by its path."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode

from ...errors import InputError, did_you_mean
from ..formats import Source

__all__ = ["Entry", "absolute", "extra_entries"]

FIELDS = ("NAME", "ANNOTATIONS", "IMAGES", "FORMAT", "CLASSES", "SUBSET", "SPLIT", "ONE_BASED")
SUBSETS = ("", "train", "val", "test")
SPLITS = ("", "train", "val")


@dataclass(frozen=True)
class Entry:
    """One entry of ``DATASETS.EXTRA``; ``split``: "train" or "val" for a fraction of the images."""

    name: str
    source: Source
    split: str


def extra_entries(cfg: CfgNode) -> list[Entry]:
    """Read ``DATASETS.EXTRA``; relative paths start from the current folder.

    Raises:
        ValueError: an entry is not a dict with these fields; names the field.
    """
    entries = [_entry(row, i) for i, row in enumerate(cfg.DATASETS.EXTRA)]
    for i, entry in enumerate(entries):
        if entry.name in [other.name for other in entries[:i]]:
            raise InputError(f"DATASETS.EXTRA has two entries with NAME '{entry.name}'")
    return entries


def _entry(row: Any, number: int) -> Entry:
    where = f"DATASETS.EXTRA, entry {number}"
    if not isinstance(row, dict) or not row.get("NAME") or not row.get("ANNOTATIONS"):
        raise InputError(
            f"{where} is {row!r}, but must be {{NAME: ..., ANNOTATIONS: ...}}, with IMAGES and "
            "others as needed"
        )
    for key, value in row.items():
        if key not in FIELDS:
            raise InputError(
                f"{where} has the field '{key}'.{did_you_mean(str(key), FIELDS)} Known: "
                f"{', '.join(FIELDS)}"
            )
        if not isinstance(value, bool if key == "ONE_BASED" else str):
            raise InputError(f"{where}: {key} is {value!r}, which has the wrong type")
    for key, known in (("SUBSET", SUBSETS), ("SPLIT", SPLITS)):
        if row.get(key, "") not in known:
            raise InputError(f"{where}: {key} is '{row[key]}'; use one of {', '.join(known[1:])}")
    source = Source(
        annotations=absolute(row["ANNOTATIONS"]),
        images=absolute(row.get("IMAGES", "")),
        format=row.get("FORMAT", ""),
        classes=absolute(row.get("CLASSES", "")),
        subset=row.get("SUBSET", ""),
        one_based=row.get("ONE_BASED", True),
    )
    return Entry(row["NAME"], source, row.get("SPLIT", ""))


def absolute(path: str) -> str:
    """Absolute path, so that a change of the current folder does no harm; "" stays."""
    return os.path.abspath(os.path.expanduser(path)) if path else ""
