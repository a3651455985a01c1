"""The models that are compared: Detectron2's and ours with the same weights, and torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from ..modeling.anchor_sizes import octave_sizes
from .inputs import make_batch, shift_to_passing
from .settings import Settings

__all__ = [
    "CHANNELS_LAST",
    "COMPILED",
    "DETECTRON2",
    "GRAPHS",
    "OURS",
    "TORCHVISION",
    "Variant",
    "available_variants",
    "build_pair",
    "build_side",
    "build_torchvision",
    "detectron2_cfg",
    "torchvision_inputs",
]

DETECTRON2, OURS, TORCHVISION = "detectron2", "retinanet_ext", "torchvision"


@dataclass(frozen=True)
class Variant:
    """A task measured once more with other config keys on our side, as ``<task>-<name>``."""

    name: str
    keys: dict[str, Any]


COMPILED = Variant("compiled", {"MODEL.SPEEDUPS.COMPILE": True})
GRAPHS = Variant(
    "graphs",
    {"MODEL.SPEEDUPS.COMPILE": True, "MODEL.SPEEDUPS.COMPILE_MODE": "reduce-overhead"},
)
CHANNELS_LAST = Variant("channels-last", {"MODEL.SPEEDUPS.CHANNELS_LAST": "all"})


def available_variants(cfg: CfgNode) -> list[Variant]:
    """What is worth measuring on the config's device; CUDA graphs are for GPUs."""
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    return [COMPILED, GRAPHS, CHANNELS_LAST] if on_gpu else [COMPILED]


def build_side(settings: Settings, side: str) -> Any:
    """One model with random weights, on the settings' device: DETECTRON2's or OURS."""
    torch.manual_seed(0)
    cfg = settings.cfg if side == OURS else detectron2_cfg(settings.cfg)
    return build_model(cfg)


def detectron2_cfg(cfg: CfgNode) -> CfgNode:
    """The same detector out of only Detectron2's parts."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    anchors = cfg.MODEL.ANCHOR_GENERATOR
    if anchors.NAME == "RetinaNetAnchorGenerator":
        anchors.NAME = "DefaultAnchorGenerator"
        if anchors.OCTAVE_BASE_SIZES:
            anchors.SIZES = octave_sizes(anchors.OCTAVE_BASE_SIZES, anchors.SCALES_PER_OCTAVE)
    return cfg


def build_pair(settings: Settings, our_settings: Settings | None = None) -> tuple[Any, Any]:
    """Detectron2's model and ours with the same weights: MODEL.WEIGHTS, or random ones.

    A fresh head scores 0.01 everywhere and detects nothing, so random predictions are spread until
    a realistic number of scores passes MODEL.RETINANET.SCORE_THRESH_TEST.

    Args:
        settings: of both.
        our_settings: of our side, where its config differs.
    """
    theirs = build_side(settings, DETECTRON2)
    if settings.cfg.MODEL.WEIGHTS:
        DetectionCheckpointer(theirs).load(settings.cfg.MODEL.WEIGHTS)
    else:
        image = make_batch(settings, 1)

        def run() -> None:
            features = theirs.backbone(theirs.preprocess_image(image).tensor)
            theirs.head([features[name] for name in theirs.head_in_features])

        head, score_thresh = theirs.head, settings.cfg.MODEL.RETINANET.SCORE_THRESH_TEST
        subnets = (head.cls_subnet, head.bbox_subnet)
        spread_predictions(theirs, run, subnets, head.cls_score, head.bbox_pred, score_thresh)
    ours = build_side(our_settings or settings, OURS)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def build_torchvision(settings: Settings) -> nn.Module:
    """torchvision's RetinaNet (its v1) with random weights, spread as :func:`build_pair` does.

    Its backbone has the config's depth, frozen norms and frozen first stages, and it does not
    resize, so that the work is comparable; anchors, FPN and head are its own.
    """
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    torch.manual_seed(0)
    cfg, size = settings.cfg, settings.size
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{cfg.MODEL.RESNETS.DEPTH}",
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        trainable_layers=min(5, max(0, 5 - cfg.MODEL.BACKBONE.FREEZE_AT)),
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = RetinaNet(
        backbone,
        num_classes=settings.num_classes,
        min_size=min(size),
        max_size=max(size),
        score_thresh=cfg.MODEL.RETINANET.SCORE_THRESH_TEST,
    ).to(settings.device)
    images, _ = torchvision_inputs(make_batch(settings, 1), settings.device)

    def run() -> None:
        tensors = model.transform(images)[0].tensors
        model.head(list(model.backbone(tensors).values()))

    classify, regress = model.head.classification_head, model.head.regression_head
    subnets = (classify.conv, regress.conv)
    score_thresh = cfg.MODEL.RETINANET.SCORE_THRESH_TEST
    spread_predictions(model, run, subnets, classify.cls_logits, regress.bbox_reg, score_thresh)
    return model


def torchvision_inputs(
    batch: list[dict[str, Any]], device: str
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images in [0, 1] and targets, as torchvision's detectors take them."""
    images = [inputs["image"].to(device).float() / 255 for inputs in batch]
    targets = [
        {
            "boxes": inputs["instances"].gt_boxes.tensor.to(device),
            "labels": inputs["instances"].gt_classes.to(device),
        }
        for inputs in batch
    ]
    return images, targets


@torch.no_grad()
def spread_predictions(
    model: Any,
    run: Callable[[], None],
    subnets: tuple[nn.Module, nn.Module],
    cls_conv: Any,
    box_conv: Any,
    score_thresh: float,
) -> None:
    """Make random predictions vary over the image as a trained model's do.

    Logits get a standard deviation of 1.5 and in each channel the same mean, low enough that few
    pass ``score_thresh``; deltas a standard deviation of 0.3.

    Args:
        model: is left in evaluation mode.
        run: sends an image through backbone and head.
        subnets: convolutions of the head before its last ones.
        cls_conv, box_conv: the last convolutions, shared by the levels.
        score_thresh: in [0, 1].
    """
    for name, module in model.named_modules():
        # Without this the activations of a deep residual network explode.
        if name.endswith(("conv2.norm", "conv3.norm", "bn2", "bn3")):
            module.weight.fill_(0.3)
    for subnet in subnets:
        for layer in subnet.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    outputs: dict[Any, list[Tensor]] = {cls_conv: [], box_conv: []}
    hooks = []
    for conv in outputs:
        nn.init.zeros_(conv.bias)
        hooks.append(conv.register_forward_hook(lambda m, _, out: outputs[m].append(out)))
    model.eval()
    run()
    for hook in hooks:
        hook.remove()
    for conv, std in ((cls_conv, 1.5), (box_conv, 0.3)):
        levels = outputs[conv]
        channel_mean = torch.cat([x.transpose(0, 1).flatten(1) for x in levels], 1).mean(1)
        levels = [x - channel_mean.view(-1, 1, 1) for x in levels]
        scale = std / torch.cat([x.flatten() for x in levels]).std()
        conv.weight *= scale
        conv.bias.copy_(-channel_mean * scale)
        if conv is cls_conv:
            conv.bias += shift_to_passing([x * scale for x in levels], score_thresh)
