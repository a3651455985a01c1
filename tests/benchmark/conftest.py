"""Settings so small that every task runs within a second."""

from __future__ import annotations

import pytest

from retinanet_ext import get_cfg
from retinanet_ext.benchmark import Settings, measure

KEYS = {
    "MODEL.META_ARCHITECTURE": "RetinaNetExt",
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.RESNETS.OUT_FEATURES": ["res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ANCHOR_GENERATOR.NAME": "RetinaNetAnchorGenerator",
    "MODEL.RETINANET.NUM_CLASSES": 3,
    "MODEL.RETINANET.NUM_CONVS": 1,
}


@pytest.fixture(scope="session")
def settings() -> Settings:
    plain = Settings(config=get_cfg().dump(), size=(64, 96), num_gt=4, images=6, repeats=1)
    return plain.with_keys(KEYS)


@pytest.fixture(autouse=True)
def quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on how warm the code is."""
    monkeypatch.setattr(measure, "WARM_UP_ROUNDS", 1)
