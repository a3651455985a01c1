"""TEST.PRECISE_BN is done, or refused where there is nothing to do."""

from __future__ import annotations

import pytest
from torch import nn

from retinanet_ext import get_cfg
from retinanet_ext.engine.optim.precise_bn import build_precise_bn
from retinanet_ext.errors import InputError


def test_statistics_of_a_model_without_batch_norm_are_refused():
    cfg = get_cfg()
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3))
    assert build_precise_bn(cfg, model, lambda cfg: iter(())) is None
    cfg.TEST.PRECISE_BN.ENABLED = True
    with pytest.raises(InputError, match=r"^TEST\.PRECISE_BN\.ENABLED is True, but the model has"):
        build_precise_bn(cfg, model, lambda cfg: iter(()))
    with_norm = nn.Sequential(model, nn.BatchNorm2d(3))
    assert build_precise_bn(cfg, with_norm, lambda cfg: iter(())) is not None
