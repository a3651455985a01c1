"""A picture, networks with numbers that show every mistake, and a model from a converted file."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor, nn

from retinanet_ext import get_cfg, validate_cfg
from retinanet_ext.weights.convert.common import Converted

SIZE = 128  # of the picture: at this and its multiples, the maps of P6 and P7 have whole strides


@pytest.fixture(scope="session")
def picture() -> Tensor:
    """(3, 128, 256) uint8, red first."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.randint(0, 256, (1, 3, 16, 32), generator=generator).float()
    image = nn.functional.interpolate(coarse, scale_factor=SIZE // 16, mode="bilinear")[0]
    return image.round().clamp(0, 255).to(torch.uint8)


def spread(state: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """The tensors with random numbers for which each layer keeps the size of its input.

    The batch norms have small variances, so that what is added to them is seen.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    found = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            new = value
        elif name.endswith("running_var"):
            new = uniform(value, 0.01, 0.03)
        elif name.endswith("running_mean"):
            new = uniform(value, -0.02, 0.02)
        elif value.ndim == 4:
            fan_in = math.prod(value.shape[1:])
            new = torch.randn(value.shape, generator=generator) / math.sqrt(fan_in)
            if "head" in name:
                new = new * {36: 0.5, 256: 1.6}.get(len(value), 2.0)  # deltas, towers, logits
        elif name.rpartition(".")[0] + ".running_var" in state:
            is_scale = name.endswith("weight")
            # Residual sums grow with the depth, less so by small scales.
            new = uniform(value, 0.08, 0.12) if is_scale else uniform(value, -0.1, 0.1)
        elif name.endswith("weight"):  # of a group norm
            new = uniform(value, 0.8, 1.2)
        else:
            new = uniform(value, -0.1, 0.1)
            if len(value) % 9 == 0 and len(value) > 36:
                new = new - 4.0  # most boxes of most classes are none
        found[name] = new
    return found


@pytest.fixture
def built() -> Callable[..., Any]:
    """Function that builds the model of a :class:`Converted`, with some keys set otherwise."""

    def build(found: Converted, **changes: Any) -> Any:
        cfg = get_cfg()
        config = {**found.config, **{k.replace("__", "."): v for k, v in changes.items()}}
        cfg.merge_from_list([x for pair in config.items() for x in pair])
        cfg.MODEL.DEVICE = "cpu"
        validate_cfg(cfg)
        model = build_model(cfg).eval()
        state = {k: v for k, v in model.state_dict().items() if not k.startswith("loss_normalizer")}
        assert state.keys() == found.model.keys()
        model.load_state_dict(found.model, strict=False)
        return model

    return build


def outputs_of(model: Any, picture: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Logits (R, K) and deltas (R, 4) of each level, of a picture with red first."""
    image = picture.flip(0) if model.input_format == "BGR" else picture
    with torch.no_grad():
        images = model.preprocess_image([{"image": image}])
        maps = model.backbone(images.tensor)
        outputs = model.head([maps[name] for name in model.head_in_features])

    def flat(level: Tensor, width: int) -> Tensor:
        return level[0].unflatten(0, (-1, width)).permute(2, 3, 0, 1).flatten(0, 2)

    return (
        [flat(x, model.num_classes) for x in outputs.logits],
        [flat(x, 4) for x in outputs.deltas],
    )


def detections_of(model: Any, picture: Tensor) -> dict[str, Tensor]:
    """Boxes, scores and classes of a picture with red first, best first."""
    image = picture.flip(0) if model.input_format == "BGR" else picture
    with torch.no_grad():
        found = model([{"image": image, "height": image.shape[1], "width": image.shape[2]}])
    found = found[0]["instances"]
    return {
        "boxes": found.pred_boxes.tensor,
        "scores": found.scores,
        "labels": found.pred_classes,
    }


def same_detections(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether each one on the left is one on the right and the other way round, but for rounding.

    Where scores are equal but for that, their order may differ.
    """
    if len(left["scores"]) != len(right["scores"]):
        return False
    free = torch.ones(len(right["scores"]), dtype=torch.bool)
    for box, score, label in zip(left["boxes"], left["scores"], left["labels"], strict=True):
        fits = free & (right["labels"] == label) & ((right["scores"] - score).abs() < 1e-4)
        fits &= (right["boxes"] - box).abs().amax(1) < 0.02
        if not fits.any():
            return False
        free[fits.nonzero()[0]] = False
    return True
