"""A :class:`Predictor` as a detection model of SAHI, for its slicing, merging and exports.

    from sahi.predict import get_sliced_prediction
    from retinanet_ext import Predictor
    from retinanet_ext.integrations.sahi import RetinaNetDetectionModel

    model = RetinaNetDetectionModel(Predictor.from_run("output/cells"), confidence_threshold=0.3)
    result = get_sliced_prediction("large.jpg", model, slice_height=512, slice_width=512)

SAHI's own model for Detectron2 knows neither this package's detector nor its keys. Tiles without
SAHI: ``TEST.TILES``, see docs/tiles.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import MissingPackageError
from ..inference import Predictor

try:
    from sahi.models.base import DetectionModel
    from sahi.prediction import ObjectPrediction
    from sahi.utils.compatibility import fix_full_shape_list, fix_shift_amount_list
except ImportError as error:
    raise MissingPackageError(
        "retinanet_ext.integrations.sahi needs the package sahi: pip install sahi (it brings "
        "opencv-python, which takes the place of opencv-python-headless)"
    ) from error

__all__ = ["RetinaNetDetectionModel"]


class RetinaNetDetectionModel(DetectionModel):  # type: ignore[misc, unused-ignore]
    """Slices go through the network in batches, with the pixels of the model's evaluation."""

    def __init__(self, predictor: Predictor, confidence_threshold: float = 0.3, **arguments: Any):
        """
        Args:
            predictor: the model; what it finds below its own score threshold never gets here.
            confidence_threshold: detections have at least this score.
            **arguments: further ones of SAHI's ``DetectionModel``, such as ``category_remapping``.
        """
        names = {str(i): name for i, name in enumerate(predictor.class_names)}
        arguments = {"category_mapping": names, "device": predictor.cfg.MODEL.DEVICE, **arguments}
        super().__init__(model=predictor, confidence_threshold=confidence_threshold, **arguments)

    def set_model(self, model: Predictor, **_: Any) -> None:
        """Take another :class:`Predictor`."""
        self.model = model

    def perform_inference(self, image: np.ndarray) -> None:
        """Detect in one picture, (H, W, 3) uint8 RGB."""
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        """Detect in several pictures, (H, W, 3) uint8 RGB, in one batch where sizes are equal."""
        self._original_predictions = list(
            self.model.stream(images, batch_size=len(images), channels="RGB", workers=0)
        )

    def _create_object_prediction_list_from_original_predictions(
        self,
        shift_amount_list: Any = None,
        full_shape_list: Any = None,
    ) -> None:
        predictions: Sequence[Any] = self._original_predictions
        shifts = fix_shift_amount_list(shift_amount_list or [[0, 0]] * len(predictions))
        sizes = fix_full_shape_list(full_shape_list) or [[x.height, x.width] for x in predictions]
        self._object_prediction_list_per_image = [
            [
                ObjectPrediction(
                    bbox=box.tolist(),
                    category_id=int(k),
                    category_name=prediction.class_names[k],
                    score=float(score),
                    shift_amount=shift,
                    full_shape=size,
                )
                for box, score, k in zip(
                    prediction.boxes, prediction.scores, prediction.classes, strict=True
                )
                if score >= self.confidence_threshold
            ]
            for prediction, shift, size in zip(predictions, shifts, sizes, strict=True)
        ]
