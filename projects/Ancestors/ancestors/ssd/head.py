"""SSD's head: predictors straight on the features of each level."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from retinanet_ext.registry import DENSE_HEAD_REGISTRY

from ..per_level import PerLevelHead


@DENSE_HEAD_REGISTRY.register()
class SSDHead(PerLevelHead):
    """A 3x3 convolution for the classes of each level, and one for its boxes (Sec. 2.1)."""

    config_keys: ClassVar[tuple[str, ...]] = ()
    freezable_parts: ClassVar[tuple[str, ...]] = ("cls_score", "bbox_pred")

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
