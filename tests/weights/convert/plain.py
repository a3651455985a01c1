"""RetinaNet of mmdet and of ODTK as these describe it, by nothing but PyTorch's functions.

From the published description of each: names of the tensors, order of the anchors, padding and
rounding, decoding. No code of this package takes part.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

Levels = list[Tensor]


def resnet(weights: dict[str, Tensor], prefix: str, x: Tensor, stride_in_1x1: bool) -> Levels:
    """C3, C4 and C5 of a ResNet of bottlenecks with torchvision's names."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, bias = (
            weights[f"{prefix}{name}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + bias

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, weights[f"{prefix}{name}.weight"], None, stride, padding)

    x = norm(conv(x, "conv1", 2, 3), "bn1").relu()
    x = F.max_pool2d(x, 3, 2, 1)
    outputs = []
    for stage in (1, 2, 3, 4):
        block = 0
        while f"{prefix}layer{stage}.{block}.conv1.weight" in weights:
            name = f"layer{stage}.{block}."
            stride = 2 if stage > 1 and block == 0 else 1
            first, second = (stride, 1) if stride_in_1x1 else (1, stride)
            y = norm(conv(x, f"{name}conv1", first), f"{name}bn1").relu()
            y = norm(conv(y, f"{name}conv2", second, 1), f"{name}bn2").relu()
            y = norm(conv(y, f"{name}conv3"), f"{name}bn3")
            if block == 0:
                x = norm(conv(x, f"{name}downsample.0", stride), f"{name}downsample.1")
            x = (x + y).relu()
            block += 1
        outputs.append(x)
    return outputs[1:]


def mmdet_forward(
    weights: dict[str, Tensor], x: Tensor, caffe: bool = False, relu: bool = False
) -> tuple[Levels, Levels]:
    """Outputs (9 K, H, W) and (36, H, W) of the levels, for one normalised picture (1, 3, H, W)."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        bias = weights.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)

    c3, c4, c5 = resnet(weights, "backbone.", x, caffe)
    inner = [conv(c, f"neck.lateral_convs.{i}.conv") for i, c in enumerate((c3, c4, c5))]
    inner[1] = inner[1] + F.interpolate(inner[2], size=inner[1].shape[-2:], mode="nearest")
    inner[0] = inner[0] + F.interpolate(inner[1], size=inner[0].shape[-2:], mode="nearest")
    levels = [conv(p, f"neck.fpn_convs.{i}.conv") for i, p in enumerate(inner)]
    levels.append(conv(c5, "neck.fpn_convs.3.conv", 2))
    p6 = levels[-1].relu() if relu else levels[-1]
    levels.append(conv(p6, "neck.fpn_convs.4.conv", 2))
    scores, boxes = [], []
    for level in levels:
        y, z = level, level
        for i in range(4):
            y, z = (
                conv(y, f"bbox_head.cls_convs.{i}.conv"),
                conv(z, f"bbox_head.reg_convs.{i}.conv"),
            )
            if f"bbox_head.cls_convs.{i}.gn.weight" in weights:
                y = _group_norm(weights, f"bbox_head.cls_convs.{i}.gn", y)
                z = _group_norm(weights, f"bbox_head.reg_convs.{i}.gn", z)
            y, z = y.relu(), z.relu()
        scores.append(conv(y, "bbox_head.retina_cls")[0])
        boxes.append(conv(z, "bbox_head.retina_reg")[0])
    return scores, boxes


def _group_norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, weights[f"{name}.weight"], weights[f"{name}.bias"])


def mmdet_detections(
    scores: Levels, boxes: Levels, size: tuple[int, int], most: int = 100
) -> dict[str, Tensor]:
    """Detections of a picture (height, width): ratios outside, sizes inside, centres at corners."""
    found = []
    for score, delta, stride in zip(scores, boxes, (8, 16, 32, 64, 128), strict=True):
        base = [
            (
                4 * stride * 2 ** (i / 3) / math.sqrt(ratio),
                4 * stride * 2 ** (i / 3) * math.sqrt(ratio),
            )
            for ratio in (0.5, 1.0, 2.0)
            for i in range(3)
        ]
        classes = len(score) // 9
        for y in range(score.shape[1]):
            for x in range(score.shape[2]):
                for a, (width, height) in enumerate(base):
                    probabilities = score[a * classes : (a + 1) * classes, y, x].sigmoid()
                    dx, dy, dw, dh = delta[a * 4 : a * 4 + 4, y, x]
                    limit = math.log(1000 / 16)
                    cx, cy = x * stride + dx * width, y * stride + dy * height
                    w = width * dw.clamp(-limit, limit).exp()
                    h = height * dh.clamp(-limit, limit).exp()
                    box = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
                    for c in (probabilities > 0.05).nonzero().flatten().tolist():
                        found.append((box, probabilities[c], c, stride))
    return _suppressed(found, size, most)


def _suppressed(found: list, size: tuple[int, int], most: int) -> dict[str, Tensor]:
    kept = []
    for stride in (8, 16, 32, 64, 128):
        level = sorted((x for x in found if x[3] == stride), key=lambda x: -float(x[1]))
        kept += level[:1000]
    boxes, scores = torch.stack([x[0] for x in kept]), torch.stack([x[1] for x in kept])
    labels = torch.tensor([x[2] for x in kept])
    height, width = size
    boxes = torch.stack(
        [x.clamp(0, limit) for x, limit in zip(boxes.unbind(1), (width, height) * 2, strict=True)],
        1,
    )
    best = batched_nms(boxes, scores, labels, 0.5)[:most]
    best = best[((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)[best]]
    return {"boxes": boxes[best], "scores": scores[best], "labels": labels[best]}


def odtk_forward(weights: dict[str, Tensor], name: str, x: Tensor) -> tuple[Levels, Levels]:
    """Outputs of the levels, see :func:`mmdet_forward`."""
    start = f"backbones.{name}."

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight, weights[f"{name}.bias"], stride, weight.shape[-1] // 2)

    c3, c4, c5 = resnet(weights, f"{start}features.", x, False)
    p5 = conv(c5, f"{start}lateral5")
    p4 = conv(c4, f"{start}lateral4") + F.interpolate(p5, scale_factor=2)
    p3 = conv(c3, f"{start}lateral3") + F.interpolate(p4, scale_factor=2)
    p6 = conv(c5, f"{start}pyramid6", 2)
    p7 = conv(p6.relu(), f"{start}pyramid7", 2)
    smooth = [conv(p, f"{start}smooth{i}") for i, p in ((3, p3), (4, p4), (5, p5))]
    scores, boxes = [], []
    for level in (*smooth, p6, p7):
        y, z = level, level
        for i in (0, 2, 4, 6):
            y, z = conv(y, f"cls_head.{i}").relu(), conv(z, f"box_head.{i}").relu()
        scores.append(conv(y, "cls_head.8")[0])
        boxes.append(conv(z, "box_head.8")[0])
    return scores, boxes


def odtk_detections(
    scores: Levels, boxes: Levels, size: tuple[int, int], most: int = 100
) -> dict[str, Tensor]:
    """Detections: sizes outside, ratios 1, 2, .5 inside, centres in the middle, sides + 1.

    The boxes' right and lower sides are those of this package: one more than ODTK's.
    """
    found = []
    for score, delta, stride in zip(scores, boxes, (8, 16, 32, 64, 128), strict=True):
        classes = len(score) // 9
        base = []
        for i in range(3):
            for ratio in (1.0, 2.0, 0.5):
                width = stride / math.sqrt(ratio) * 4 * 2 ** (i / 3)
                half = torch.tensor([width, width * ratio]) / 2
                base.append(torch.cat([stride / 2 - half, stride / 2 + half]))
        for y in range(score.shape[1]):
            for x in range(score.shape[2]):
                for a, cell in enumerate(base):
                    probabilities = score[a * classes : (a + 1) * classes, y, x].sigmoid()
                    anchor = cell + stride * torch.tensor([x, y, x, y])
                    sides = anchor[2:] - anchor[:2] + 1
                    d = delta[a * 4 : a * 4 + 4, y, x]
                    centre = anchor[:2] + 0.5 * sides + d[:2] * sides
                    new = d[2:].exp() * sides
                    corners = centre - 0.5 * new, centre + 0.5 * new - 1
                    box = torch.cat([corners[0], corners[1] + 1])
                    for c in (probabilities > 0.05).nonzero().flatten().tolist():
                        found.append((box, probabilities[c], c, stride))
    return _suppressed(found, size, most)
