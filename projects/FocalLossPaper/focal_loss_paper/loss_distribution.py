"""Figure 4 of the paper: which share of the loss the hardest anchors of a trained model hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import build_augmentation
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from torch import Tensor

from retinanet_ext.data.loading.ignore_mapper import IgnoreRegionMapper
from retinanet_ext.engine.checkpoint.checkpointer import SafeCheckpointer
from retinanet_ext.losses import focal_loss

GAMMAS = (0.0, 0.5, 1.0, 2.0)
MAX_IMAGES = 200
BACKGROUND_PER_IMAGE = 20_000  # anchors, drawn at random
POINTS = 201  # of a curve


@dataclass(frozen=True)
class AnchorSamples:
    """Logits of anchors that a trained model sees.

    Attributes:
        foreground: (P, K) logits of all positive anchors.
        labels: (P,) their classes.
        background: (B, K) logits of background anchors, sampled.
    """

    foreground: Tensor
    labels: Tensor
    background: Tensor


@torch.no_grad()
def collect_samples(
    cfg: CfgNode, weights: Path, dataset: str, max_images: int = MAX_IMAGES, seed: int = 0
) -> AnchorSamples:
    """Run a checkpoint over images with ground truth and label its anchors as in training.

    Args:
        cfg: of the trained model.
        weights: its checkpoint.
        dataset: a registered dataset.
        max_images: the first so many.
        seed: of the sampling.
    """
    model = build_model(cfg).eval()
    SafeCheckpointer(model).load(str(weights))
    mapper = IgnoreRegionMapper(
        is_train=True,  # keeps the ground truth
        augmentations=build_augmentation(cfg, is_train=False),
        image_format=cfg.INPUT.FORMAT,
    )
    generator = torch.Generator().manual_seed(seed)
    classes = cfg.MODEL.RETINANET.NUM_CLASSES
    positives, labels, negatives = [], [], []
    for entry in DatasetCatalog.get(dataset)[:max_images]:
        sample = mapper(entry)
        maps = model.backbone(model.preprocess_image([sample]).tensor)
        features = [maps[name] for name in model.head_in_features]
        targets = model.label_anchors(model.anchor_generator(features), [sample])
        levels = [permute_to_N_HWA_K(x, classes) for x in model.head(features)[0]]
        logits, truth = torch.cat(levels, dim=1)[0].float().cpu(), targets.labels[0].cpu()
        is_positive = targets.pos_mask[0].cpu()
        background = (truth == classes).nonzero().squeeze(1)
        order = torch.randperm(len(background), generator=generator)[:BACKGROUND_PER_IMAGE]
        positives.append(logits[is_positive])
        labels.append(truth[is_positive])
        negatives.append(logits[background[order]])
    return AnchorSamples(torch.cat(positives), torch.cat(labels), torch.cat(negatives))


def cumulative_loss(losses: Tensor, points: int = POINTS) -> np.ndarray:
    """Share of the total loss in the easiest anchors, at ``points`` shares of the anchors.

    Args:
        losses: (S,), at least 0.

    Returns:
        (points,) from 0 to 1: entry i is the share of the loss in the easiest i / (points - 1).
    """
    total = torch.cat([torch.zeros(1, dtype=torch.float64), losses.double().sort()[0].cumsum(0)])
    share = (total / total[-1].clamp(min=torch.finfo(torch.float64).tiny)).numpy()
    return np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(share)), share)


def loss_curves(samples: AnchorSamples) -> dict[str, dict[str, list[float]]]:
    """Cumulative normalised focal loss of foreground and background anchors for each gamma.

    The loss of an anchor is the sum over its K sigmoids, without alpha. Model and samples are the
    same for each gamma, as in the paper.

    Returns:
        ``{"foreground" | "background": {"0", "0.5", "1", "2": POINTS numbers}}``.
    """
    one_hot = torch.zeros_like(samples.foreground).scatter_(1, samples.labels[:, None], 1.0)
    kinds = {
        "foreground": (samples.foreground, one_hot),
        "background": (samples.background, torch.zeros_like(samples.background)),
    }
    return {
        kind: {
            f"{gamma:g}": cumulative_loss(
                focal_loss(logits.double(), targets, alpha=-1, gamma=gamma).sum(dim=1)
            ).tolist()
            for gamma in GAMMAS
        }
        for kind, (logits, targets) in kinds.items()
    }
