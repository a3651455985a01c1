"""Pictures that are not there or cannot be read, met while the annotations are read.

YOLO and CSV do not record the sizes of pictures, so each is opened early. A bad one is then left
out or ends the run, by the same rules as one that the training meets later.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from detectron2.data import DatasetCatalog

from ...errors import InputError, MissingFileError, UserError
from ...errors import count as counted
from ..formats import BoxTable
from ..formats.images import find_unopened
from ..loading.bad_images import MAX_BAD_SHARE, MIN_BAD_FILES

__all__ = [
    "note_unopened",
    "require_all_pictures",
    "require_pictures",
    "require_pictures_open",
    "without_bad_pictures",
]

logger = logging.getLogger(__name__)


def require_pictures(table: BoxTable, annotations: str, images: str = "") -> None:
    """Check that at least one picture of a dataset is there.

    Args:
        table: the dataset.
        annotations, images: what was named, for the message.

    Raises:
        FileNotFoundError: none is.
    """
    names = table.file_names
    if names and not any(os.path.isfile(name) for name in names):
        where = (
            f", as {annotations}:IMAGE_DIR or IMAGES" if not images else f" in place of {images}"
        )
        raise MissingFileError(
            f"{annotations}: none of its {len(names)} pictures is there; looked for {names[0]} and "
            f"so on; name the folder that the file names start from{where}"
        )


def require_all_pictures(name: str, pictures: Sequence[str]) -> None:
    """Check, before training, that the evaluation after it will find its pictures.

    Raises:
        FileNotFoundError: some of them are not there.
    """
    missing = [path for path in pictures if not os.path.isfile(path)]
    if missing:
        raise MissingFileError(
            f"dataset '{name}': {len(missing)} of {len(pictures)} pictures are not there, first "
            f"{missing[0]}; an evaluation leaves none out: put them there, or remove them from the "
            "annotations (check-data --fix does)"
        )


def require_pictures_open(names: Sequence[str]) -> None:
    """Check the pictures of registered datasets before a training; only their heads are read.

    Raises:
        ValueError, FileNotFoundError: some cannot be opened; names the first and why.
    """
    for name in names:
        pictures = [os.fspath(x["file_name"]) for x in DatasetCatalog.get(name)]
        bad = find_unopened(pictures)
        if bad:
            first = next(iter(bad))
            kind: type[UserError] = InputError if os.path.exists(first) else MissingFileError
            fix = "fix or remove it" if len(bad) == 1 else "fix or remove them"
            raise kind(
                f"dataset '{name}': {counted(len(bad), 'picture')} of {len(pictures)} cannot be "
                f"used, first {first}: {bad[first]}; {fix} (check-data --images --fix FILE writes "
                "annotations without such), or set DATALOADER.ON_ERROR to skip"
            )


def note_unopened(table: BoxTable, images: Sequence[int]) -> None:
    """Add those of ``images`` that cannot be opened to ``table.bad``; only their heads are read."""
    names = [table.file_names[i] for i in images if table.file_names[i] not in table.bad]
    table.bad.update(find_unopened(names))


def without_bad_pictures(
    name: str, table: BoxTable, images: Sequence[int], on_error: str, trains: bool
) -> list[int]:
    """The indices of ``images`` whose pictures can be read, as far as that is known.

    Args:
        name: of the dataset, for messages.
        table: its annotations.
        images: indices into it.
        on_error: ``DATALOADER.ON_ERROR``: with "skip", bad pictures are left out, with a warning.
        trains: whether it is trained on, or split off from a set that is; for an evaluation of
            something else, nothing is left out.

    Raises:
        ValueError, FileNotFoundError: there are bad ones, or with "skip" too many: all, or more
            than ``MAX_BAD_SHARE`` and at least ``MIN_BAD_FILES``.
    """
    bad = [i for i in images if table.file_names[i] in table.bad]
    if not bad:
        return list(images)
    first = table.file_names[bad[0]]
    count = "picture" if len(bad) == 1 else "pictures"
    seen = f"{len(bad)} {count} of {len(images)} cannot be used, first {first}: {table.bad[first]}"
    kind: type[UserError] = InputError if os.path.exists(first) else MissingFileError
    if not (trains and on_error == "skip"):
        fix = "fix or remove it" if len(bad) == 1 else "fix or remove them (check-data lists all)"
        hint = ", or set DATALOADER.ON_ERROR to skip" if trains else ": evaluation leaves none out"
        raise kind(f"dataset '{name}': {seen}; {fix}{hint}")
    too_many = len(bad) >= MIN_BAD_FILES and len(bad) > MAX_BAD_SHARE * len(images)
    if too_many or len(bad) == len(images):
        raise kind(
            f"dataset '{name}': {seen}; too many to be left out, as DATALOADER.ON_ERROR says (more "
            f"than {MAX_BAD_SHARE:.0%}); fix or remove them (check-data lists all)"
        )
    logger.warning("dataset '%s': %s; left out, as DATALOADER.ON_ERROR says", name, seen)
    return [i for i in images if table.file_names[i] not in table.bad]
