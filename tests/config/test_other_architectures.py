"""Detectron2's other detectors in a config: what they do not read is refused, as for RetinaNet."""

from __future__ import annotations

from typing import Any

import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from retinanet_ext import UserError, get_cfg, load_config_file, validate_cfg
from retinanet_ext.data.datasets.check import check_num_classes
from retinanet_ext.structures import detection_node, detection_section


def faster_rcnn(*opts: Any) -> CfgNode:
    cfg = get_cfg()
    load_config_file(cfg, "configs/quickstart_faster_rcnn.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.merge_from_list(list(opts))
    return cfg


def test_faster_rcnn_is_accepted():
    assert validate_cfg(faster_rcnn()) == []


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("MODEL.RETINANET.NUM_CLASSES", 5, "set MODEL.ROI_HEADS.NUM_CLASSES instead"),
        ("MODEL.RETINANET.NUM_CONVS", 2, "remove it"),
        ("MODEL.RETINANET.CLS_LOSS", "BCE", "DenseRPN"),
        ("MODEL.SPEEDUPS.COMPILE", True, "GeneralizedRCNN does not read MODEL.SPEEDUPS"),
    ],
)
def test_keys_of_retinanet_are_refused_by_faster_rcnn(key: str, value: Any, says: str):
    with pytest.raises(UserError, match=f"{key} is .*{says}"):
        validate_cfg(faster_rcnn(key, value))


def test_the_part_to_freeze_is_the_trainers():
    validate_cfg(faster_rcnn("MODEL.RETINANET.FREEZE", ["backbone"]))


def test_each_architecture_has_its_key_of_classes():
    cfg = faster_rcnn()
    assert detection_section(cfg) == "MODEL.ROI_HEADS"
    assert detection_node(cfg) is cfg.MODEL.ROI_HEADS
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    assert detection_node(cfg) is cfg.MODEL.RETINANET
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    assert detection_section(cfg) is None and detection_node(cfg) is None


def test_five_classes_and_eighty_do_not_fit_in_faster_rcnn():
    name = "other_architectures_five"
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).thing_classes = list("abcde")
    try:
        cfg = faster_rcnn("DATASETS.TRAIN", (name,), "DATASETS.TEST", ())
        check_num_classes(cfg)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
        with pytest.raises(UserError, match=r"MODEL.ROI_HEADS.NUM_CLASSES is 80 .* set .* to 5"):
            check_num_classes(cfg)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
