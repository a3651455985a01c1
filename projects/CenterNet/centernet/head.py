"""The head: one map of heat, one of sizes, one of offsets."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["INITIAL_BIAS", "CenterNetHead"]

INITIAL_BIAS = -2.19
"""Of the heat's logits: a score of 0.10 everywhere when training begins (Sec. 5.1)."""


class CenterNetHead(nn.Module):
    """Three branches, each a 3x3 convolution, ReLU and a 1x1 convolution."""

    freezable_parts = ("heat", "size", "offset")

    def __init__(self, in_channels: int, num_classes: int, width: int = 64):
        """
        Args:
            in_channels: of the feature.
            num_classes: K.
            width: channels of the 3x3 convolutions.
        """
        super().__init__()
        self.heat = _branch(in_channels, width, num_classes, INITIAL_BIAS)
        self.size = _branch(in_channels, width, 2)
        self.offset = _branch(in_channels, width, 2)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the heat (N, K, H, W), sizes and offsets (N, 2, H, W) in cells.

        Args:
            features: one, (N, C, H, W).
        """
        (x,) = features
        return self.heat(x), self.size(x), self.offset(x)


def _branch(in_channels: int, width: int, outputs: int, bias: float = 0.0) -> nn.Sequential:
    hidden, last = nn.Conv2d(in_channels, width, 3, padding=1), nn.Conv2d(width, outputs, 1)
    for conv, std, constant in ((hidden, 0.01, 0.0), (last, 0.001, bias)):
        nn.init.normal_(conv.weight, std=std)
        assert conv.bias is not None
        nn.init.constant_(conv.bias, constant)
    return nn.Sequential(hidden, nn.ReLU(), last)
