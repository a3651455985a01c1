"""The work of ``predict``: pictures in, lines and files out, in memory that does not grow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .outputs import Clip, CocoIds, PictureFiles, ResultsFolder, write_formats
from .pictures import Picture
from .prediction import FailedPicture, Prediction
from .predictor import Predictor
from .progress import Progress
from .score_thresh import ScoreThresh, describe, reaches
from .sources import Item, Items, Listing, VideoOptions
from .streaming.stream import WINDOW

__all__ = ["Job", "Summary"]

DECIMALS = 3  # of boxes: an evaluation of the results is that of the model


class _Stop(Exception):
    """The first failure ends the run."""


@dataclass
class Summary:
    """What was done.

    Attributes:
        images, detections, failed: counts.
        score_thresh: of the detections that are counted.
        before: images that an earlier run had done.
        seconds: of the work, without loading the model.
        files: written at the end.
        unknown: images that ``--annotations`` does not hold.
        notes: sentences about what was read.
    """

    images: int = 0
    detections: int = 0
    failed: int = 0
    score_thresh: ScoreThresh = 0.0
    before: int = 0
    seconds: float = 0.0
    files: list[str] = field(default_factory=list)
    unknown: int = 0
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """In one line."""
        images = "1 image" if self.images == 1 else f"{self.images} images"
        rate = f" ({self.images / self.seconds:.3g} images/s)" if self.images else ""
        found = "1 detection" if self.detections == 1 else f"{self.detections} detections"
        found += f" with a score from {describe(self.score_thresh)}"
        words = [f"{images}, {found}, in {self.seconds:.1f} s{rate}"]
        words += [f"{self.before} done before"] if self.before else []
        words += [f"{self.failed} failed"] if self.failed else []
        return ", ".join(words)


@dataclass
class Job:
    """One run of the command.

    Attributes:
        predictor: the model.
        listing: what is read.
        folder: of the results; open.
        files: written for each picture.
        ids: for COCO's format.
        formats: written at the end, see :data:`~retinanet_ext.inference.outputs.FORMATS`.
        classes: indices that are kept; None keeps all.
        clip: a video of the drawn pictures.
        show: is called with each drawn picture; False ends the run.
        batch_size, workers: see ``Predictor.stream``.
        video: which frames are taken.
        stop_on_error: whether the first picture that cannot be read ends the run.
    """

    predictor: Predictor
    listing: Listing
    folder: ResultsFolder
    files: PictureFiles
    ids: CocoIds
    formats: Sequence[str] = ()
    classes: frozenset[int] | None = None
    clip: Clip | None = None
    show: Callable[[Image.Image], bool] | None = None
    batch_size: int | None = 1
    workers: int | None = None
    video: VideoOptions = field(default_factory=VideoOptions)
    stop_on_error: bool = False
    summary: Summary = field(default_factory=Summary)

    def run(self, progress: Progress) -> None:
        """Do it; ``summary`` says what was done.

        Also where it is interrupted, all files are complete and hold what was done so far.

        Args:
            progress: is told each picture.

        Raises:
            KeyboardInterrupt: as it came.
        """
        summary = self.summary
        summary.before, summary.score_thresh = len(self.folder.done), self.files.drawn_from
        try:
            self._predict(progress, summary)
        except _Stop:
            pass
        finally:
            summary.seconds = progress.seconds
            progress.end()
            if self.clip is not None:
                self.clip.close()
            self.folder.lines.close()
            given = self.files.score_thresh
            score_thresh = 0.0 if given is None else given
            summary.files = write_formats(self.folder, self.formats, self.ids, score_thresh)
            summary.unknown = self.ids.unknown
            self.folder.close()

    def _predict(self, progress: Progress, summary: Summary) -> None:
        def failed(name: str, reason: str) -> None:
            self.folder.add_failed(name, reason)
            progress.step(failed=True)
            summary.failed += 1
            if self.stop_on_error:
                raise _Stop

        items = Items(self.listing, self.video, self.folder.done, failed, summary.notes.append)
        for result in self._stream(items):
            if isinstance(result, FailedPicture):
                failed(result.name, result.reason)
                continue
            if self.classes is not None:
                result = _of_classes(result, self.classes)
            continues = self._write(result)
            progress.step()
            summary.images += 1
            summary.detections += int(
                reaches(result.scores, result.classes, summary.score_thresh).sum()
            )
            if not continues:
                return

    def _stream(self, items: Iterable[Picture]) -> Iterable[Prediction | FailedPicture]:
        live = self.listing.is_live  # read when asked for, so that nothing waits in a queue
        frames = all(entry.kind != "picture" for entry in self.listing.entries)
        return self.predictor.stream(
            items,
            1 if live else self.batch_size,
            workers=0 if live else self.workers,
            on_error="yield",
            window=1 if frames and self.listing.rest is None else WINDOW,
        )

    def _write(self, prediction: Prediction) -> bool:
        """Write what there is of a picture, its line last; whether to continue."""
        item: Item = prediction.extra
        start = time.perf_counter()
        drawn = self.files.write(prediction, item.stem)
        if drawn is None and (self.clip is not None or self.show is not None):
            drawn = self.files.drawn(prediction)
        continues = True
        if drawn is not None:
            if self.clip is not None:
                self.clip.add(drawn)
            continues = self.show is None or self.show(drawn)
        drawing = (time.perf_counter() - start) * 1e3
        self.folder.lines.add(
            prediction.to_line(
                item.file, item.frame, item.seconds, item.index, DECIMALS, draw=drawing
            )
        )
        return continues


def _of_classes(prediction: Prediction, classes: frozenset[int]) -> Prediction:
    kept = np.isin(prediction.classes, list(classes))
    return prediction.only(kept)
