"""Choose the evaluator that fits a dataset."""

from __future__ import annotations

import os

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, LVISEvaluator, PascalVOCDetectionEvaluator

from ..errors import ConfigError, InputError, MissingPackageError, did_you_mean
from .coco import COCODetectionEvaluator

__all__ = ["build_evaluator"]


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | None = None
) -> DatasetEvaluator:
    """Build the evaluator named by the dataset's metadata "evaluator_type".

    "coco" is ours; "lvis" and "pascal_voc" are Detectron2's; a dataset that names none and is
    registered in standard dicts is evaluated as COCO. ``TEST.DETECTIONS_PER_IMAGE`` limits the
    detections that count.

    Args:
        cfg: reads TEST.DETECTIONS_PER_IMAGE, OUTPUT_DIR and DATASETS.TEST.
        dataset_name: a registered dataset.
        output_dir: for predictions; ``OUTPUT_DIR/inference`` by default, with a folder per
            dataset below it when DATASETS.TEST has several.

    Raises:
        KeyError: an unknown dataset.
        ValueError: an evaluator_type that is not one of the three.
        ImportError: LVIS without the lvis package.
    """
    evaluator_type = _evaluator_type(dataset_name)
    if output_dir is None:
        output_dir = os.path.join(cfg.OUTPUT_DIR, "inference")
        if len(cfg.DATASETS.TEST) > 1:
            output_dir = os.path.join(output_dir, dataset_name)
    max_dets = cfg.TEST.DETECTIONS_PER_IMAGE
    if evaluator_type == "coco":
        return COCODetectionEvaluator(
            dataset_name, output_dir=output_dir, max_dets_per_image=max_dets
        )
    if evaluator_type == "lvis":
        return _lvis_evaluator(dataset_name, output_dir, max_dets)
    if evaluator_type == "pascal_voc":
        return PascalVOCDetectionEvaluator(dataset_name)
    raise InputError(
        f"Dataset '{dataset_name}' has evaluator_type '{evaluator_type}'; build_evaluator knows "
        "'coco', 'lvis' and 'pascal_voc'. Set it in the dataset's metadata, or override "
        "build_evaluator in your trainer"
    )


def _evaluator_type(dataset_name: str) -> str:
    # MetadataCatalog.get would create the metadata of a misspelt name.
    metadata = MetadataCatalog.get(dataset_name) if dataset_name in MetadataCatalog else None
    if metadata is not None and metadata.get("evaluator_type"):
        return metadata.evaluator_type
    has_json = metadata is not None and metadata.get("json_file") is not None
    if has_json or dataset_name in DatasetCatalog:
        return "coco"
    raise ConfigError(
        f"Dataset '{dataset_name}' is not registered."
        f"{did_you_mean(dataset_name, DatasetCatalog.list())} Register it, for example with "
        "retinanet_ext.data.register_coco_dataset, before it is evaluated"
    )


def _lvis_evaluator(dataset_name: str, output_dir: str, max_dets: int) -> LVISEvaluator:
    try:
        return LVISEvaluator(dataset_name, output_dir=output_dir, max_dets_per_image=max_dets)
    except ImportError as error:
        raise MissingPackageError(
            f"Evaluating '{dataset_name}' needs the lvis package: pip install lvis"
        ) from error
