"""What a model found in one picture, and a picture that could not be read.

Letters: N detections, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from PIL import Image

from ..boxes import with_masks
from ..errors import InputError, MissingPackageError
from ..visualization.draw import drawn_detections
from .score_thresh import ScoreThresh, reaches

__all__ = ["FailedPicture", "Prediction"]

DRAWN_FROM = 0.5
"""Score from which detections are drawn where nothing else is asked for."""


@dataclass(frozen=True)
class FailedPicture:
    """A picture that could not be read.

    Attributes:
        name: of the picture.
        index: in the order of the sources, from 0.
        reason: one sentence.
        extra: of the :class:`Picture`.
    """

    name: str
    index: int
    reason: str
    extra: Any = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """The detections of a picture, best first.

    Attributes:
        name: of the picture: its path, or what it was given; "" for a nameless array.
        index: in the order of the sources, from 0.
        instances: on the CPU: ``pred_boxes`` (N, 4) XYXY in pixels of the upright picture and
            within it, ``scores`` (N,), ``pred_classes`` (N,); of a model with masks also
            ``pred_masks`` (N, H, W) bool.
        class_names: of the model, (K,).
        picture: (H, W, 3) uint8 RGB, upright.
        extra: of the :class:`Picture`.
        milliseconds: by step: ``read`` of this picture, ``model`` its share of the batch.
    """

    name: str
    index: int
    instances: Instances
    class_names: Sequence[str]
    picture: np.ndarray
    extra: Any = None
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def height(self) -> int:
        """Of the upright picture, in pixels."""
        return int(self.picture.shape[0])

    @property
    def width(self) -> int:
        """Of the upright picture, in pixels."""
        return int(self.picture.shape[1])

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) float32 XYXY, in pixels of the upright picture."""
        return self.instances.pred_boxes.tensor.numpy()

    @property
    def scores(self) -> np.ndarray:
        """(N,) float32 in [0, 1]."""
        return self.instances.scores.numpy()

    @property
    def classes(self) -> np.ndarray:
        """(N,) int64 in [0, K)."""
        return self.instances.pred_classes.numpy()

    @property
    def masks(self) -> np.ndarray | None:
        """(N, H, W) bool, of the upright picture; None of a model without masks."""
        masks = self.instances.get_fields().get("pred_masks")
        return None if masks is None else np.asarray(masks, dtype=bool)

    @property
    def names(self) -> list[str]:
        """Of each detection's class, (N,)."""
        return [self.class_names[k] for k in self.classes]

    def __len__(self) -> int:
        return len(self.instances)

    def __repr__(self) -> str:
        name = f"'{self.name}', " if self.name else ""
        return f"Prediction({name}{self.width} x {self.height} px, {len(self)} detections)"

    def above(self, score: ScoreThresh) -> Prediction:
        """The same with only the detections of at least ``score``.

        Args:
            score: of all classes, or of each, (K,).
        """
        return self.only(reaches(self.scores, self.classes, score, len(self.class_names)))

    def only(self, kept: np.ndarray) -> Prediction:
        """The same with a part of the detections.

        Args:
            kept: (N,) bool.
        """
        return replace(self, instances=self.instances[torch.as_tensor(kept)])

    def draw(
        self,
        score_thresh: ScoreThresh = DRAWN_FROM,
        height: int | None = None,
        gt_boxes: np.ndarray | None = None,
        labels: bool = True,
    ) -> Image.Image:
        """The picture with its detections.

        Args:
            score_thresh: detections with at least this score are drawn; see :meth:`above`.
            height: of the result in pixels; the picture's by default.
            gt_boxes: (M, 4) XYXY, drawn dashed below the detections.
            labels: write classes and scores too, and not only boxes.
        """
        shown = self.above(score_thresh)
        return drawn_detections(
            self.picture,
            shown.boxes,
            shown.classes.tolist(),
            shown.scores.tolist(),
            list(self.class_names),
            gt_boxes,
            height,
            labels,
            shown.masks,
        )

    def to_dict(self, decimals: int = 2) -> dict[str, Any]:
        """For json: size, and of each detection class, score, box and ``segmentation`` (a mask).

        Args:
            decimals: of the boxes.
        """
        detections = [
            {
                "class": self.class_names[k],
                "class_id": int(k),
                "score": float(str(score)),  # the shortest that is this float32
                "box": [round(float(x), decimals) for x in box],
            }
            for box, score, k in zip(self.boxes, self.scores, self.classes, strict=True)
        ]
        return {
            "file": self.name or None,
            "index": self.index,
            "width": self.width,
            "height": self.height,
            "detections": with_masks(detections, self.masks),
        }

    def to_line(
        self,
        file: str | None,
        frame: int | None = None,
        time_s: float | None = None,
        index: int | None = None,
        decimals: int = 2,
        **milliseconds: float,
    ) -> dict[str, Any]:
        """A line of ``predictions.jsonl``.

        Args:
            file: path of the picture or video; None where it has none.
            frame, time_s: of a video.
            index: of the picture's source; its own by default.
            decimals: of the boxes.
            **milliseconds: of further steps.
        """
        content = self.to_dict(decimals)
        return {
            "file": file,
            "index": self.index if index is None else index,
            "frame": frame,
            "time_s": time_s,
            **{name: content[name] for name in ("width", "height", "detections")},
            "ms": {**self.milliseconds, **{k: round(x, 3) for k, x in milliseconds.items()}},
        }

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Results in COCO's format, exactly as the evaluation writes them.

        Args:
            image_id: of the picture in the annotations.
            category_ids: (K,) of the classes there; 1 to K by default, COCO's custom.
        """
        ids = range(1, len(self.class_names) + 1) if category_ids is None else category_ids
        if len(ids) != len(self.class_names):
            raise InputError(
                f"category_ids has {len(ids)} entries for {len(self.class_names)} classes"
            )
        boxes = self.boxes.copy()
        boxes[:, 2:] -= boxes[:, :2]
        results = [
            {"image_id": image_id, "category_id": int(ids[k]), "bbox": box, "score": score}
            for box, score, k in zip(
                boxes.tolist(), self.scores.tolist(), self.classes.tolist(), strict=True
            )
        ]
        return with_masks(results, self.masks)

    def to_supervision(self) -> Any:
        """As ``supervision.Detections``.

        Raises:
            ImportError: that package is missing.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingPackageError(
                "to_supervision needs the package supervision: pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.classes,
            mask=self.masks,
            data={"class_name": np.array(self.names)},
        )
