"""Evaluation: COCO AP and AR of boxes, the choice of an evaluator, and drawn detections."""

from .build import build_evaluator
from .coco import COCODetectionEvaluator

__all__ = ["COCODetectionEvaluator", "build_evaluator"]
