"""The head: one map of heat, one of sizes, one of offsets."""

from __future__ import annotations

from detectron2.layers import get_norm
from torch import Tensor, nn

__all__ = ["INITIAL_BIAS", "CenterNetHead"]

INITIAL_BIAS = -2.19
"""Of the heat's logits: a score of 0.10 everywhere when training begins (Sec. 5.1)."""


class CenterNetHead(nn.Module):
    """Three branches, each a 3x3 convolution, perhaps a norm, ReLU and a 1x1 convolution."""

    freezable_parts = ("heat", "size", "offset")

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        width: int = 64,
        norm: str = "",
        size_scale: float = 1.0,
    ):
        """
        Args:
            in_channels: of the feature.
            num_classes: K.
            width: channels of the 3x3 convolutions.
            norm: after them, a name of ``detectron2.layers.get_norm``; "" is none.
            size_scale: what the branch of the sizes is multiplied by, in cells.
        """
        super().__init__()
        self.size_scale = size_scale
        self.heat = _branch(in_channels, width, num_classes, norm, INITIAL_BIAS)
        self.size = _branch(in_channels, width, 2, norm)
        self.offset = _branch(in_channels, width, 2, norm)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the heat (N, K, H, W), sizes and offsets (N, 2, H, W) in cells.

        Args:
            features: one, (N, C, H, W).
        """
        (x,) = features
        return self.heat(x), self.size(x) * self.size_scale, self.offset(x)


def _branch(
    in_channels: int, width: int, outputs: int, norm: str, bias: float = 0.0
) -> nn.Sequential:
    hidden, last = nn.Conv2d(in_channels, width, 3, padding=1), nn.Conv2d(width, outputs, 1)
    nn.init.normal_(last.weight, std=0.001)
    assert last.bias is not None
    nn.init.constant_(last.bias, bias)
    norms = [get_norm(norm, width)] if norm else []
    return nn.Sequential(hidden, *norms, nn.ReLU(), last)
