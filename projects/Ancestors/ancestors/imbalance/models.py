"""Background of a model of Detectron2: of its anchors, cells or proposals."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.data import DatasetCatalog, load_proposals_into_dataset
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from detectron2.utils.events import EventStorage
from torch import Tensor

from retinanet_ext.data.loading.ignore_mapper import IgnoreRegionMapper
from retinanet_ext.data.loading.pixels import PictureMapper
from retinanet_ext.errors import InputError
from retinanet_ext.inference import Predictor
from retinanet_ext.losses.sampling import hardest_at_ratio

from ..systems import by_name
from .counted import Counted, by_sigmoid, by_softmax

ALL = 10**6  # a sample that takes everything


@torch.no_grad()
def of_model(predictor: Predictor, dataset: str, pictures: int) -> Iterator[Counted]:
    cfg, model = predictor.cfg, predictor.model
    name, data = cfg.MODEL.META_ARCHITECTURE, cfg.DATASETS
    if name not in COUNTS:
        raise InputError(f"nobody has said how {name} counts background; add it to COUNTS")
    entries = DatasetCatalog.get(dataset)[:pictures]
    if cfg.MODEL.LOAD_PROPOSALS:
        entries = load_proposals_into_dataset(entries, data.PROPOSAL_FILES_TEST[0])
    mapper = IgnoreRegionMapper(
        is_train=True,  # keeps the ground truth
        augmentations=PictureMapper(cfg, is_train=False).augmentations.augs,
        image_format=cfg.INPUT.FORMAT,
        precomputed_proposal_topk=data.PRECOMPUTED_PROPOSAL_TOPK_TEST
        if cfg.MODEL.LOAD_PROPOSALS
        else None,
    )
    for entry in entries:
        sample = mapper(entry)
        maps = model.backbone(model.preprocess_image([sample]).tensor)
        with EventStorage():  # Detectron2's samplers write to one
            counted = COUNTS[name](cfg, model, sample, maps)
        yield counted


def _of_retinanet(cfg: Any, model: Any, sample: dict[str, Any], maps: dict) -> Counted:
    """Dense heads of this package: RetinaNet, FCOS, SSD and YOLO by config."""
    node = cfg.MODEL.RETINANET
    classes = node.NUM_CLASSES
    features = [maps[name] for name in model.head_in_features]
    outputs = model.head(features)
    targets = model.label_anchors(model.anchor_generator(features), [sample])
    labels = targets.labels[0]
    if node.QUALITY_BRANCH == "objectness":  # says by itself what is an object
        logits = _flat(outputs.named["quality"], 1)
        labels = torch.where((labels >= 0) & (labels < classes), 0, labels.clamp(max=1))
        return by_sigmoid(logits, labels, 1)
    if node.get("CLASSIFIER", "sigmoid") == "softmax":
        logits = _flat(outputs[0], classes + 1)
        loss = F.cross_entropy(logits, labels.clamp(min=0), reduction="none")
        if node.CLS_LOSS == "OHEM":
            least = node.get("OHEM_MIN_NEG", 3)
            loss = loss * hardest_at_ratio(loss, labels, classes, 3.0, min_negatives=least)
        return by_softmax(logits, labels, classes, loss)
    focal = (node.FOCAL_LOSS_GAMMA, node.FOCAL_LOSS_ALPHA)
    own = focal if node.CLS_LOSS == "FocalLoss" else None
    return by_sigmoid(_flat(outputs[0], classes), labels, classes, own)


def _of_two_stages(cfg: Any, model: Any, sample: dict[str, Any], maps: dict) -> Counted:
    """Of the first stage all anchors and the sample; without one, of the second the proposals."""
    truth = [sample["instances"].to(model.device)]
    first = model.proposal_generator
    if first is None or not hasattr(first, "rpn_head"):
        return _of_proposals(model, sample, maps)
    features = [maps[name] for name in first.in_features]
    anchors = first.anchor_generator(features)
    logits = torch.cat([x.permute(0, 2, 3, 1).flatten() for x in first.rpn_head(features)[0]])
    sampled = first.label_and_sample_anchors(anchors, truth)[0][0]
    size, first.batch_size_per_image = first.batch_size_per_image, ALL
    labels = first.label_and_sample_anchors(anchors, truth)[0][0]
    first.batch_size_per_image = size
    as_ours = torch.where(labels == 1, 0, torch.where(labels == 0, 1, -1))  # one class, background
    counted = by_sigmoid(logits[:, None], as_ours, 1)
    chosen = sampled[labels >= 0] >= 0
    return Counted(counted.before, counted.before * chosen, counted.easy)


def _of_proposals(model: Any, sample: dict[str, Any], maps: dict) -> Counted:
    """R-CNN: all boxes of the file, and the sample of them."""
    heads, truth = model.roi_heads, [sample["instances"].to(model.device)]
    given = [sample["proposals"].to(model.device)]
    size, share = heads.batch_size_per_image, heads.positive_fraction
    heads.batch_size_per_image = ALL
    heads.positive_fraction = 1.0
    try:
        found = heads.label_and_sample_proposals(given, truth)[0]
    finally:
        heads.batch_size_per_image, heads.positive_fraction = size, share
    features = [maps[name] for name in heads.in_features]
    boxes = heads.box_head(heads.box_pooler(features, [found.proposal_boxes]))
    logits, labels = heads.box_predictor(boxes)[0], found.gt_classes
    loss = F.cross_entropy(logits, labels, reduction="none")
    positive = (labels < heads.num_classes).nonzero()[:, 0]
    negative = (labels == heads.num_classes).nonzero()[:, 0]
    kept = positive[torch.randperm(len(positive))[: int(size * share)]]
    rest = negative[torch.randperm(len(negative))[: size - len(kept)]]
    chosen = torch.zeros_like(loss).index_fill(0, torch.cat([kept, rest]), 1.0)
    return by_softmax(logits, labels, heads.num_classes, loss * chosen)


def _of_centernet(cfg: Any, model: Any, sample: dict[str, Any], maps: dict) -> Counted:
    """Cells of the heat; near an object (1 - Y)^4 turns their loss down, p^2 where it is easy."""
    module = importlib.import_module(by_name("centernet").imports[0] + ".centernet.targets")
    features = [maps[name] for name in model.head_in_features]
    logits = model.head(features)[0]
    truth = [sample["instances"].to(logits.device)]
    points = module.centre_points(truth, model.decoder.stride, tuple(logits.shape[2:]))
    targets = model.targets(points, logits)
    flat, heat = logits[0].flatten(1).T, targets.heat[0]
    labels, classes = targets.labels[0], targets.num_classes
    plain = by_sigmoid(flat, labels, classes)
    p = flat.sigmoid()
    peaks = F.one_hot(labels, classes + 1)[:, :-1].bool()
    of_peaks = (1 - p) ** 2 * -F.logsigmoid(flat)
    of_others = (1 - heat) ** 4 * p**2 * -F.logsigmoid(-flat)
    return Counted(plain.before, torch.where(peaks, of_peaks, of_others).sum(1), plain.easy)


COUNTS: dict[str, Callable[[Any, Any, dict[str, Any], dict], Counted]] = {
    "RetinaNetExt": _of_retinanet,
    "GeneralizedRCNN": _of_two_stages,
    "CenterNet": _of_centernet,
}


def _flat(levels: Any, channels: int) -> Tensor:
    """(R, channels) of the levels' (1, A * channels, H, W)."""
    return torch.cat([permute_to_N_HWA_K(x, channels)[0] for x in levels]).float()
