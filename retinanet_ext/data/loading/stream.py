"""The batches of training as a stream with a position, to be continued exactly where it was left.

Detectron2's loader runs its sampler in the workers and its augmentations on their generators: the
batches depend on the number of workers, and a resumed run starts again at the first image. Here the
main process decides what a batch holds, from Detectron2's own samplers, and every draw has a number
that its random numbers follow from.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.data.build import trivial_batch_collator
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ...compat import end_workers
from .index_batches import Draw, batch_draws, find_wide, group_draws
from .sample_seed import SeededSamples
from .workers import defer_worker_errors, init_worker, waiting_for_batch

__all__ = ["TrainStream"]

logger = logging.getLogger(__name__)


class TrainStream:
    """Endless batches: lists of mapped images, this process's part of each batch of the job.

    Which images a batch holds, and what augmentation makes of them, follows from the seed and the
    position only: not from the number of workers, nor from generators of the process, which stay
    untouched. The images of one batch of all processes are those of a single process with the same
    total batch, unless ``group`` is set.

    Iteration starts at the current position. There is one iterator at a time: a new one, and
    :meth:`load_state_dict`, close the one before with its workers.

    Attributes:
        seed: of the order and of the augmentations.
        images: the position: images handed out to all processes. A batch counts when it is handed
            out, not when a worker loads it ahead.
        dataset_size: images in the dataset, after those without objects were left out.
        batch_size: images per batch of this process.
        total_batch_size: the same of all processes together.
    """

    def __init__(
        self,
        dataset: Any,
        mapper: Callable[[Any], Any],
        make_sampler: Callable[[int], Iterable[int]],
        batch_size: int,
        *,
        seed: int = 0,
        num_workers: int = 0,
        group: bool = False,
        is_wide: Sequence[bool] | None = None,
    ):
        """
        Args:
            dataset: map-style, such as ``DatasetFromList`` of dataset dicts.
            mapper: from an entry of it to a sample, see :class:`.sample_seed.SeededSamples`.
            make_sampler: from a seed to the indices of this process, each process an equal share;
                the same ones whenever they are iterated. Called at the first iteration, by all
                processes at the same time.
            batch_size: images per batch of this process, at least 1.
            seed: of the run, the same in all processes; at least 0.
            num_workers: processes that load images; 0 loads them in this one.
            group: whether a batch holds only images that are wider than high, or none of them.
            is_wide: for each image whether it is; read from the dataset where it is missing.
        """
        self.dataset_size = len(dataset)
        self.batch_size = batch_size
        self.total_batch_size = batch_size * comm.get_world_size()
        self.seed = seed
        self.images = 0
        self._dataset = dataset
        self._mapper = mapper
        self._make_sampler = make_sampler
        self._sampler: Iterable[int] | None = None
        self._num_workers = num_workers
        self._group = group
        self._is_wide = is_wide
        self._live: Generator[list[Any], None, None] | None = None

    def __iter__(self) -> Iterator[list[Any]]:
        """Batches from the current position on.

        Raises:
            RuntimeError: while iterating: a worker died. Nothing of the batch is lost: a new
                iterator starts with it.
        """
        self.close()
        self._live = self._iterate()
        return self._live

    def close(self) -> None:
        """End the workers; the position stays."""
        if self._live is not None:
            self._live.close()
            self._live = None

    def state_dict(self) -> dict[str, int]:
        """The position, and what the order of the images depends on; the same in all processes."""
        return {
            "images": self.images,
            "seed": self.seed,
            "batch_size": self.total_batch_size,
            "processes": comm.get_world_size(),
            "dataset_size": self.dataset_size,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue with the batch after the saved position, with the saved seed.

        No image is loaded for it. With another batch size, number of processes or dataset, training
        continues after as many images, rounded down to a whole batch; a warning says so.
        """
        self.close()
        if state["seed"] != self.seed:
            self.seed, self._sampler = int(state["seed"]), None
        self.images = int(state["images"]) // self.total_batch_size * self.total_batch_size
        names = {
            "batch_size": "images per batch",
            "processes": "processes",
            "dataset_size": "images in the dataset",
        }
        now = self.state_dict()
        changes = [
            f"{state[key]} {name} before and {now[key]} now"
            for key, name in names.items()
            if state.get(key, now[key]) != now[key]
        ]
        if changes:
            logger.warning(
                "the training images continue after %d images, but not with the batches of an "
                "uninterrupted run: there were %s",
                self.images,
                ", ".join(changes),
            )

    def _iterate(self) -> Generator[list[Any], None, None]:
        loader = DataLoader(
            SeededSamples(self._dataset, self._mapper, self.seed),
            batch_sampler=self._draw_batches(self.images // self.total_batch_size),
            num_workers=self._num_workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=init_worker,
            generator=torch.Generator(),  # else it draws a number from the global one
        )
        batches = iter(loader)
        try:
            with defer_worker_errors() if self._num_workers else nullcontext():
                while True:
                    try:
                        with waiting_for_batch():
                            batch = next(batches)
                    except StopIteration:  # a sampler that ends, which none of Detectron2's does
                        return
                    self.images += self.total_batch_size
                    yield batch
        finally:
            end_workers(batches)

    def _draw_batches(self, skip: int) -> Iterator[list[Draw]]:
        """What the batches of this process hold, without the first ``skip`` ones."""
        if self._sampler is None:
            self._sampler = self._make_sampler(self.seed)
        numbers = itertools.count(comm.get_rank(), comm.get_world_size())
        draws = zip(self._sampler, numbers, strict=False)
        if not self._group:
            return batch_draws(draws, self.batch_size, skip)
        if self._is_wide is None:
            self._is_wide = find_wide(self._dataset)
        return group_draws(draws, self.batch_size, self._is_wide, skip)
