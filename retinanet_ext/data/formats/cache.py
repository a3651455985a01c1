"""Reads annotations once, and again only when a file they came from has changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from ...files import written_whole
from .coco import PROBED_IMAGES, read_coco
from .csv_rows import read_csv
from .table import BoxTable, Inputs, Source, paused_gc
from .voc import read_voc
from .yolo import read_yolo

__all__ = ["default_cache_dir", "read_cached"]

VERSION = 3  # of what is stored; a change of a reader's results needs a new one
READERS: dict[str, Callable[[Source, Inputs], BoxTable]] = {
    "coco": read_coco,
    "voc": read_voc,
    "yolo": read_yolo,
    "csv": read_csv,
}

logger = logging.getLogger(__name__)


def default_cache_dir() -> str:
    """``$XDG_CACHE_HOME/retinanet_ext``, or ``~/.cache/retinanet_ext``."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(root, "retinanet_ext")


def read_cached(source: Source, cache_dir: str) -> BoxTable:
    """The annotations of ``source``, whose format must be filled in.

    Args:
        source: what to read.
        cache_dir: folder of the cache; "" for none. One that cannot be written to does no harm.

    Raises:
        ValueError, OSError: what is wrong with the annotations.
    """
    path = _cache_file(source, cache_dir) if cache_dir else None
    table = _load(path) if path else None
    if table is not None:
        logger.info("%s: %d images from the cache %s", source.annotations, len(table), path)
        return table
    started, inputs = time.perf_counter(), Inputs()
    with paused_gc():
        table = READERS[source.format](source, inputs)
    seconds = time.perf_counter() - started
    logger.info(
        "%s: read %d images as %s in %.1f s", source.annotations, len(table), source.format, seconds
    )
    if path:
        _save(table, inputs, path)
    return table


def _cache_file(source: Source, cache_dir: str) -> Path:
    key = json.dumps([VERSION, dataclasses.asdict(source)], sort_keys=True)
    return Path(cache_dir) / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"


def _load(path: Path) -> BoxTable | None:
    """The stored table if it is there, whole and up to date."""
    try:
        table, inputs = BoxTable.load(str(path))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    return table if inputs.unchanged() and _has_images(table) else None


def _has_images(table: BoxTable) -> bool:
    """Whether the first images are where they were: a moved folder changes no annotations."""
    first = table.file_names[:PROBED_IMAGES]
    return not first or any(map(os.path.isfile, first))


def _save(table: BoxTable, inputs: Inputs, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(str(path)) as new:
            table.save(new, inputs)
    except OSError as error:
        logger.info("annotations are not cached in %s: %s", path.parent, error)
