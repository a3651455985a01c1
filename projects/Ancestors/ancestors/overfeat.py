"""OverFeat (Sermanet et al., 2013): a classifier that slides over pictures of several sizes.

The network has no padding, so on a window of 35x35 pixels it says one class and one box, and on a
picture what it would say on every window with stride 4, at the price of one pass
(``test_map_equals_windows``). Boxes are regressed and greedily merged. As in the paper, the
background that it learns from is chosen on the fly: the windows that offend most.

Not as there: a small network from random weights, trained for classes and boxes at once, with
smooth L1 on Faster R-CNN's deltas instead of L2 on edges.

Letters: K classes, R windows of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor, nn

from retinanet_ext.losses.sampling import hardest_at_ratio

from .samples import GREY
from .scanning import BACKGROUND, CORE, Found, merge, pyramid, resize

WINDOW, STRIDE, FACTOR = 35, 4, 2**0.5
PAD = WINDOW // 2  # around a picture, so that windows reach over its border
CELLS = 32  # of a training crop, each way
CROP = WINDOW + STRIDE * (CELLS - 1)
PER_OBJECT, AT_LEAST = 3, 8  # background windows that are learned from
LEAST = 0.1  # probability of a detection, at least
MATCHER = Matcher([BACKGROUND, 0.5], [0, -1, 1], allow_low_quality_matches=False)
CODER = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))


class OverFeat(nn.Module):
    """The network, and the detector that it makes.

    Attributes:
        largest: scale that pictures are first looked at.
    """

    largest: Tensor

    def __init__(self, num_classes: int, w: int = 32):
        """
        Args:
            num_classes: K.
            w: channels of the first layer; the others have multiples of it.
        """
        super().__init__()
        self.features = nn.Sequential(  # 35 -> 16 -> 14 -> 7 -> 5 -> 1
            *_layer(3, w, 5, 2), *_layer(w, 2 * w, 3), nn.MaxPool2d(2),
            *_layer(2 * w, 3 * w, 3), *_layer(3 * w, 4 * w, 5),
        )  # fmt: skip
        self.classes = nn.Conv2d(4 * w, num_classes + 1, 1)
        self.boxes = nn.Conv2d(4 * w, 4, 1)
        self.register_buffer("largest", torch.ones(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, R, K + 1), background last, and deltas (B, R, 4) of images (B, 3, H, W)."""
        maps = self.features(images)
        both = self.classes(maps), self.boxes(maps)
        logits, deltas = (x.flatten(2).transpose(1, 2) for x in both)
        return logits, deltas

    def losses(self, images: Tensor, truth: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """The sum of the losses of crops (B, 3, CROP, CROP), divided by the objects' windows.

        Args:
            images: of :func:`as_input`.
            truth: of each crop the boxes (G, 4), classes (G,) and ignored boxes (I, 4).
        """
        logits, deltas = self(images)
        cores, total, matched = window_cores(CELLS, CELLS).to(logits), logits.sum() * 0, 0
        for scores, numbers, (boxes, classes, ignored) in zip(logits, deltas, truth, strict=True):
            labels, nearest = label_windows(cores, boxes, classes, ignored, scores.shape[1] - 1)
            plain = F.cross_entropy(scores, labels.clamp(min=0), reduction="none")
            chosen = choose_windows(plain, labels, scores.shape[1] - 1)
            inside = (labels >= 0) & (labels < scores.shape[1] - 1)
            target = CODER.get_deltas(cores[inside], boxes[nearest[inside]])
            total = total + plain[chosen].sum()
            total = total + F.smooth_l1_loss(numbers[inside], target, reduction="sum")
            matched += int(inside.sum())
        return total / max(matched, 1)

    @torch.no_grad()
    def detect(self, rgb: np.ndarray) -> Found:
        """Objects in a picture (H, W, 3) uint8; in evaluation mode."""
        boxes, scores, labels = [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0, int)]
        for scale, size in pyramid(rgb.shape, WINDOW // 2, FACTOR, float(self.largest)):
            image = F.pad(as_input(resize(rgb, size)), (PAD,) * 4, value=GREY / 127.5 - 1)
            logits, deltas = (x[0].cpu() for x in self(image[None].to(self.largest)))
            best, label = logits.softmax(1)[:, :-1].max(1)
            kept = best > LEAST
            cells = [(side + 2 * PAD - WINDOW) // STRIDE + 1 for side in size]
            found = CODER.apply_deltas(deltas[kept], window_cores(*cells)[kept]) - PAD
            boxes.append(found.numpy() / scale)
            scores.append(best[kept].numpy())
            labels.append(label[kept].numpy())
        found = merge(Found(*(np.concatenate(x) for x in (boxes, scores, labels))))
        return Found(found.boxes.clip(0, rgb.shape[1::-1] * 2), found.scores, found.labels)


def _layer(before: int, after: int, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(before, after, kernel, stride, bias=False)
    return convolution, nn.BatchNorm2d(after), nn.ReLU()


def as_input(rgb: np.ndarray) -> Tensor:
    """(3, H, W) about -1..1 of (H, W, 3) uint8."""
    return torch.from_numpy(rgb.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1)


def window_cores(rows: int, cols: int) -> Tensor:
    """(R, 4) XYXY pixels: the core of each window, where its object is."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    centre = torch.stack([x, y], -1).reshape(-1, 2) * STRIDE + WINDOW / 2
    return torch.cat([centre - WINDOW * CORE / 2, centre + WINDOW * CORE / 2], 1)


def label_windows(
    cores: Tensor, boxes: Tensor, classes: Tensor, ignored: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Classes (R,) of the windows, -1 where in doubt, K for background; and their boxes' rows."""
    nearest, kind = MATCHER(pairwise_iou(Boxes(boxes), Boxes(cores)))
    labels, doubt = torch.full_like(nearest, num_classes), kind == -1
    if len(boxes):
        labels = torch.where(kind == 1, classes[nearest], num_classes)
    if len(ignored):
        near = pairwise_iou(Boxes(ignored), Boxes(cores)).amax(0) >= BACKGROUND
        doubt = doubt | near & (labels == num_classes)
    return labels.masked_fill(doubt, -1), nearest


def choose_windows(losses: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mask (R,) of what is learned from: objects, and the background that offends most."""
    return hardest_at_ratio(losses, labels, num_classes, PER_OBJECT, min_negatives=AT_LEAST)
