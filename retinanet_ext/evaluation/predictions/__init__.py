"""Evaluation of a file of detections, of whatever detector, without a model."""

from .evaluate import evaluate_predictions

__all__ = ["evaluate_predictions"]
