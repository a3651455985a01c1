"""TEST.TILES, TEST.AUG and TEST.MERGE: what cannot work is refused before anything is built."""

from __future__ import annotations

from typing import Any

import pytest
from detectron2.config import CfgNode

from retinanet_ext import get_cfg
from retinanet_ext.config import validate_cfg
from retinanet_ext.errors import InputError


def changed(**values: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = values.pop("architecture", "RetinaNetExt")
    for name, value in values.items():
        section, key = name.rsplit("_IN_", 1)[::-1]
        cfg.TEST[section][key] = value
    return cfg


@pytest.mark.parametrize(
    "values",
    [
        {"SIZE_IN_TILES": (800, 1333), "OVERLAP_IN_TILES": 0.0, "KIND_IN_MERGE": "wbf"},
        {"SIZE_IN_TILES": (128,), "OVERLAP_PIXELS_IN_TILES": 127, "FULL_IMAGE_IN_TILES": False},
        {"SIZE_IN_TILES": [128, 128], "ENABLED_IN_AUG": True, "THRESH_IN_MERGE": 0.6},
        {"ENABLED_IN_AUG": True, "MIN_SIZES_IN_AUG": [640], "MAX_SIZE_IN_AUG": 640},
        {"ENABLED_IN_AUG": True, "KIND_IN_MERGE": "soft", "FLIP_IN_AUG": False},
    ],
)
def test_what_works_is_no_warning(values):
    assert validate_cfg(changed(**values)) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"SIZE_IN_TILES": (256,), "OVERLAP_IN_TILES": 1.0}, r"^TEST\.TILES\.OVERLAP must be in"),
        ({"OVERLAP_IN_TILES": -0.1}, r"^TEST\.TILES\.OVERLAP must be in"),
        (
            {"SIZE_IN_TILES": (256, 200), "OVERLAP_PIXELS_IN_TILES": 200},
            r"^TEST\.TILES\.OVERLAP_PIXELS is 200, but a tile of TEST\.TILES\.SIZE \(256, 200\)",
        ),
        ({"SIZE_IN_TILES": (127, 300)}, r"127 pixels is too small, the largest stride.* 128; set"),
        ({"SIZE_IN_TILES": (0,)}, r"^TEST\.TILES\.SIZE is \(0,\); set it to height and width"),
        ({"SIZE_IN_TILES": (1, 2, 3)}, r"^TEST\.TILES\.SIZE is \(1, 2, 3\); set it to height"),
        ({"SIZE_IN_TILES": ("a",)}, r"^TEST\.TILES\.SIZE is "),
        ({"BATCH_IN_TILES": 0}, r"^TEST\.TILES\.BATCH must be at least 1"),
        ({"KIND_IN_MERGE": "nmm"}, r"^TEST\.MERGE\.KIND is 'nmm'; set it to one of"),
        ({"THRESH_IN_MERGE": 1.5}, r"^TEST\.MERGE\.THRESH is 1\.5; set it to an IoU"),
        ({"AVERAGE_IN_MERGE": 1.0}, r"^TEST\.MERGE\.AVERAGE must be"),
        ({"THRESH_IN_MERGE": "a"}, r"^TEST\.MERGE\.THRESH is 'a'; set it to an IoU"),
        ({"ENABLED_IN_AUG": True, "MIN_SIZES_IN_AUG": ()}, r"^TEST\.AUG\.MIN_SIZES is \(\); set"),
        ({"ENABLED_IN_AUG": True, "MIN_SIZES_IN_AUG": (0,)}, r"^TEST\.AUG\.MIN_SIZES is \(0,\)"),
        ({"ENABLED_IN_AUG": True, "MAX_SIZE_IN_AUG": 0}, r"^TEST\.AUG\.MAX_SIZE must be at least"),
        (
            {"ENABLED_IN_AUG": True, "architecture": "RetinaNet"},
            r"^TEST\.AUG\.ENABLED is True, but RetinaNet does not give .* set .* RetinaNetExt",
        ),
        (
            {"SIZE_IN_TILES": (256,), "architecture": "RetinaNet"},
            r"^TEST\.TILES\.SIZE is \(256,\), but RetinaNet does not give ",
        ),
        (
            {"ENABLED_IN_AUG": True, "architecture": "GeneralizedRCNN"},
            r"^TEST\.AUG\.ENABLED is True, but GeneralizedRCNN does not give ",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_its_key(values, message):
    with pytest.raises(InputError, match=message):
        validate_cfg(changed(**values))


def test_levels_of_smaller_strides_take_smaller_tiles():
    cfg = changed(SIZE_IN_TILES=(64,))
    cfg.MODEL.RETINANET.IN_FEATURES = ["p3", "p4", "p5"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16.0], [32.0], [64.0]]
    assert validate_cfg(cfg) == []
    cfg.TEST.TILES.SIZE = (63,)
    with pytest.raises(InputError, match=r"63 pixels is too small; set it to 64 or more"):
        validate_cfg(cfg)


def test_merging_without_anything_to_merge_is_a_warning():
    keys = {"KIND_IN_MERGE": "wbf", "THRESH_IN_MERGE": 0.6, "AVERAGE_IN_MERGE": 0.0}
    (kind, thresh, average) = validate_cfg(changed(**keys))
    assert average.startswith("TEST.MERGE.AVERAGE is 0.0, but without TEST.TILES.SIZE")
    assert kind.startswith("TEST.MERGE.KIND is 'wbf', but without TEST.TILES.SIZE")
    assert thresh.startswith("TEST.MERGE.THRESH is 0.6, but without TEST.TILES.SIZE")
