"""Images that cannot be loaded: what DATALOADER.ON_ERROR chooses.

"fail" stops the run, see :class:`LoadOrFail`; "skip" continues, see :class:`LoadOrSkip`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import UserError, one_line

logger = logging.getLogger(__name__)

MAX_BAD_SHARE = 0.01
"""Share of the images drawn that may be bad before :class:`LoadOrSkip` stops."""

MIN_BAD_FILES = 10
"""It never stops for fewer files than these, so that a few of a small data set do no harm."""

MAX_TRIES = 20
"""Nor does it take more bad images in a row."""

Mapper = Callable[[dict[str, Any]], Any]


class BadImageError(UserError, ValueError):
    """An image that cannot be loaded; its text is one sentence that names the file.

    A data loader's worker hands its errors over as the text of their tracebacks; of those the
    sentence is kept, and the traceback logged at level DEBUG.
    """

    def __init__(self, message: str):
        before, _, sentence = message.rpartition(f"{BadImageError.__name__}: ")
        super().__init__(sentence.strip())
        if before:
            logger.debug("%s", message)


class LoadOrFail:
    """A dataset mapper whose errors name the file."""

    def __init__(self, mapper: Mapper, hint: str):
        """
        Args:
            mapper: takes one of Detectron2's dataset dicts; may be any callable.
            hint: what the user can do, the end of the sentence.
        """
        self.mapper = mapper
        self.hint = hint

    def __call__(self, dataset_dict: dict[str, Any]) -> Any:
        """Return ``mapper(dataset_dict)``.

        Raises:
            BadImageError: the mapper failed.
        """
        try:
            return self.mapper(dataset_dict)
        except MemoryError:  # not the image's fault
            raise
        except Exception as error:
            raise BadImageError(f"{describe(dataset_dict, error)}; {self.hint}") from error


class LoadOrSkip:
    """A dataset mapper that takes another image, at random, where one cannot be loaded.

    Each bad file is logged once. In each process that loads images, a worker of the data loader or
    the process itself, it counts on its own: with W workers, a file may be logged W times.
    """

    def __init__(self, mapper: Mapper, dataset: Sequence[dict[str, Any]]):
        """
        Args:
            mapper: takes one of Detectron2's dataset dicts; may be any callable.
            dataset: all of them, to take others from.
        """
        self.mapper = mapper
        self.dataset = dataset
        self.num_drawn = 0
        self.num_bad = 0
        self.bad_files: set[str] = set()

    def __call__(self, dataset_dict: dict[str, Any]) -> Any:
        """Return ``mapper(dataset_dict)``, or that of another entry of the dataset.

        Raises:
            BadImageError: more than MAX_BAD_SHARE of the images drawn so far could not be loaded,
                and at least MIN_BAD_FILES files; or MAX_TRIES images in a row.
        """
        for _ in range(MAX_TRIES):
            self.num_drawn += 1
            try:
                return self.mapper(dataset_dict)
            except MemoryError:
                raise
            except Exception as error:
                self._count(dataset_dict, error)
                last = describe(dataset_dict, error)
            dataset_dict = self.dataset[random.randrange(len(self.dataset))]
        raise BadImageError(f"{MAX_TRIES} images in a row could not be loaded; the last: {last}")

    def _count(self, dataset_dict: dict[str, Any], error: Exception) -> None:
        self.num_bad += 1
        name, text = _file_name(dataset_dict), describe(dataset_dict, error)
        if name not in self.bad_files:
            self.bad_files.add(name)
            logger.warning(
                "%s; skipped, as DATALOADER.ON_ERROR says (%d of %d images drawn)",
                text,
                self.num_bad,
                self.num_drawn,
            )
        share = self.num_bad / self.num_drawn
        if share > MAX_BAD_SHARE and len(self.bad_files) >= MIN_BAD_FILES:
            raise BadImageError(
                f"{self.num_bad} of {self.num_drawn} images drawn could not be loaded, more than "
                f"{MAX_BAD_SHARE:.0%}; the last: {text}"
            )


def describe(dataset_dict: dict[str, Any], error: Exception) -> str:
    """``cannot load <file>: <error in one line>``."""
    name = _file_name(dataset_dict)
    if isinstance(error, UserError):  # a sentence by itself
        if str(error).startswith(f"{name}: "):
            return f"cannot load {one_line(error)}"
        return f"cannot load {name}: {one_line(error)}"
    # Some messages are only a name, as of a KeyError, and some exceptions have none.
    kind, reason = type(error).__name__, one_line(error)
    return f"cannot load {name}: {kind}" + (f": {reason}" if reason != kind else "")


def _file_name(dataset_dict: dict[str, Any]) -> str:
    name = dataset_dict.get("file_name")
    return str(name) if name else f"the image with id {dataset_dict.get('image_id')}"
