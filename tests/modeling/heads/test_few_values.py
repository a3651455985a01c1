"""Batch norm with statistics of its own for a level of a few cells is warned of."""

from __future__ import annotations

import pytest

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.config.shipped import config_names

SMALL = {"INPUT.MIN_SIZE_TRAIN": (192, 256), "SOLVER.IMS_PER_BATCH": 4}


def warnings_with(**keys) -> list[str]:
    cfg = get_cfg()
    load_config_file(cfg, "Base-R_18_FPN-scratch.yaml")
    cfg.merge_from_list([x for pair in keys.items() for x in pair])
    return [x for x in validate_cfg(cfg) if "few values" in x]


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_a_level_of_four_cells_in_batches_of_four_is_named(norm: str):
    (warning,) = warnings_with(**SMALL, **{"MODEL.RETINANET.NORM": norm})
    assert f"NORM is '{norm}'" in warning and "those of p7 come from few values" in warning
    assert "p7: 16 in a batch of 4 images of 192 pixels" in warning and "NORM to GN" in warning


@pytest.mark.parametrize(
    "keys",
    [
        {"MODEL.RETINANET.NORM": "GN"},
        {"MODEL.RETINANET.NORM": ""},
        {"MODEL.RETINANET.NORM": "BN", "MODEL.RETINANET.NORM_PER_LEVEL": "shared"},
        {"MODEL.RETINANET.NORM": "BN", "SOLVER.IMS_PER_BATCH": 16},
        {"MODEL.RETINANET.NORM": "BN", "INPUT.MIN_SIZE_TRAIN": (640,)},
        {
            "MODEL.RETINANET.NORM": "BN",
            "MODEL.RETINANET.IN_FEATURES": ["p3", "p4", "p5"],
            "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": [24.0, 48.0, 96.0],
        },
    ],
)
def test_what_has_enough_values_is_not(keys: dict):
    assert warnings_with(**{**SMALL, **keys}) == []


@pytest.mark.parametrize("name", config_names())
def test_no_shipped_config_has_the_fault(name: str):
    cfg = get_cfg()
    load_config_file(cfg, name)
    assert not any("few values" in x for x in validate_cfg(cfg))
