"""Many pictures: read, put in batches, computed, and given out in their order."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..pictures import Picture
from ..prediction import FailedPicture, Prediction
from .lanes import in_lanes
from .reading import ReadPicture, default_workers, in_batches, read_ahead

__all__ = ["AUTO_BATCH", "WINDOW", "Stream"]

AUTO_BATCH = {"cpu": 4, "cuda": 32}
"""Pictures at once where no number is given, by the kind of device."""
WINDOW = 4
"""Batches within which pictures are put in another order, so that each has one padded size."""

Found = Prediction | FailedPicture


@dataclass(frozen=True)
class Stream:
    """From pictures to predictions, in memory that does not grow.

    Attributes:
        read: the pixels of a picture; may raise.
        key: of what was read; batches have one key. None for a batch by itself.
        predict: of a batch of pictures that could be read.
        batch_size: pictures in the network at once.
        lanes: batches that are computed side by side; they share ``batch_size``.
        workers: threads that read; None is the default.
        raises: whether a picture that cannot be read ends it.
        window: batches that are read before the first comes out.
    """

    read: Callable[[Picture], np.ndarray]
    key: Callable[[ReadPicture], Hashable | None]
    predict: Callable[[Sequence[ReadPicture]], Sequence[Prediction]]
    batch_size: int = 1
    lanes: int = 1
    workers: int | None = None
    raises: bool = True
    window: int = WINDOW

    def __call__(self, pictures: Iterable[Picture]) -> Iterator[Found]:
        """The results, in the order of the pictures."""
        workers = default_workers() if self.workers is None else self.workers
        together = self.batch_size * max(1, self.window) if self.batch_size > 1 else 1
        reads = read_ahead(pictures, self.read, workers, ahead=together + 2 * workers)
        batches = in_batches(reads, self.key, -(-self.batch_size // self.lanes), together)
        waiting: dict[int, Found] = {}
        following = 0
        for found in in_lanes(self._results, batches, self.lanes):
            waiting |= {result.index: result for result in found}
            while following in waiting:
                yield waiting.pop(following)
                following += 1

    def _results(self, batch: Sequence[ReadPicture]) -> Sequence[Found]:
        """Of a batch; what failed is one by itself."""
        first = batch[0]
        if first.error is None:
            return self.predict(batch)
        if self.raises:
            raise first.error
        return [FailedPicture(first.picture.label, first.index, first.reason, first.picture.extra)]
