"""Detections of pictures: the model of a run, fed and read the way its evaluation is.

``predictor.py`` is what people use; ``pictures.py`` turns whatever holds a picture into the pixels
that the evaluation's mapper would read, ``detector.py`` these into detections.
"""

from __future__ import annotations

from .pictures import Picture
from .prediction import FailedPicture, Prediction
from .predictor import Predictor

__all__ = ["FailedPicture", "Picture", "Prediction", "Predictor"]
