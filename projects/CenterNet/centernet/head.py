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
        self.heat = _branch(in_channels, width, num_classes)
        self.size = _branch(in_channels, width, 2)
        self.offset = _branch(in_channels, width, 2)
        nn.init.constant_(self.heat[-1].bias, INITIAL_BIAS)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the heat (N, K, H, W), sizes and offsets (N, 2, H, W) in cells.

        Args:
            features: one, (N, C, H, W).
        """
        (x,) = features
        return self.heat(x), self.size(x), self.offset(x)


def _branch(in_channels: int, width: int, outputs: int) -> nn.Sequential:
    branch = nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, outputs, 1)
    )
    for layer in (branch[0], branch[2]):
        nn.init.normal_(layer.weight, std=0.001 if layer is branch[2] else 0.01)
        nn.init.zeros_(layer.bias)
    return branch
