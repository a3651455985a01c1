"""Settings so small that every task runs within a second."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

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


@pytest.fixture
def perturb(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], None]:
    """Let the pairs that a task's module builds have other weights on our side."""

    def perturb(task: ModuleType) -> None:
        build_pair = task.build_pair

        def build(*args: Any) -> tuple[Any, Any]:
            theirs, ours = build_pair(*args)
            with torch.no_grad():
                ours.head.bbox_pred.bias += 0.01
            return theirs, ours

        monkeypatch.setattr(task, "build_pair", build)

    return perturb
