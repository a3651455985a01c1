"""Files of one picture: drawn detections, crops, labels of YOLO."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from PIL import Image

from ..prediction import DRAWN_FROM, Prediction
from ..score_thresh import ScoreThresh
from .folder import CROPS, DRAWN, LABELS

__all__ = ["PictureFiles"]

QUALITY = 92


@dataclass(frozen=True)
class PictureFiles:
    """Which files are written for each picture, before the line that says that it is done.

    Attributes:
        folder: of the results.
        draw, crops, yolo: which.
        score_thresh: detections have at least this score, of all classes or of each, (K,); by
            default :data:`~retinanet_ext.inference.prediction.DRAWN_FROM` in drawings and crops.
        labels: whether drawings name classes and scores.
    """

    folder: str
    draw: bool = False
    crops: bool = False
    yolo: bool = False
    score_thresh: ScoreThresh | None = None
    labels: bool = True

    @property
    def drawn_from(self) -> ScoreThresh:
        """Lowest score in drawings and crops."""
        return DRAWN_FROM if self.score_thresh is None else self.score_thresh

    def drawn(self, prediction: Prediction) -> Image.Image:
        """The picture with its detections."""
        return prediction.draw(self.drawn_from, labels=self.labels)

    def write(self, prediction: Prediction, stem: str) -> Image.Image | None:
        """Write the files; return the drawn picture, if there is one.

        Args:
            prediction: of the picture.
            stem: relative path of its files, without suffix.
        """
        if self.yolo:
            self._write_labels(
                prediction.above(0.0 if self.score_thresh is None else self.score_thresh), stem
            )
        if self.crops:
            self._write_crops(prediction.above(self.drawn_from), stem)
        if not self.draw:
            return None
        drawn = self.drawn(prediction)
        _save(drawn, os.path.join(self.folder, DRAWN, f"{stem}.jpg"))
        return drawn

    def _write_labels(self, prediction: Prediction, stem: str) -> None:
        width, height = prediction.width, prediction.height
        lines = []
        for (x1, y1, x2, y2), score, k in zip(
            prediction.boxes.tolist(),
            prediction.scores.tolist(),
            prediction.classes.tolist(),
            strict=True,
        ):
            center = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
            size = (x2 - x1) / width, (y2 - y1) / height
            numbers = " ".join(f"{x:.6f}" for x in (*center, *size, score))
            lines.append(f"{k} {numbers}\n")
        path = os.path.join(self.folder, LABELS, f"{stem}.txt")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.writelines(lines)

    def _write_crops(self, prediction: Prediction, stem: str) -> None:
        picture = Image.fromarray(prediction.picture)
        found = zip(prediction.boxes.tolist(), prediction.names, strict=True)
        for number, ((x1, y1, x2, y2), name) in enumerate(found):
            left, top = min(int(x1), picture.width - 1), min(int(y1), picture.height - 1)
            right, bottom = max(round(x2), left + 1), max(round(y2), top + 1)
            crop = picture.crop((left, top, right, bottom))
            place = os.path.join(self.folder, CROPS, _as_folder(name), f"{stem}_{number}.jpg")
            _save(crop, place)


def _as_folder(name: str) -> str:
    """The name of a class as that of a folder, which leads nowhere else."""
    name = re.sub(r"[/\\\0:*?\"<>|\n\r\t]", "_", name).strip()
    return name if name.strip(".") else f"_{name}"


def _save(picture: Image.Image, path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    picture.save(path, "JPEG", quality=QUALITY, subsampling=0)
