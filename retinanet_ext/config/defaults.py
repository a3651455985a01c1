"""Every config key that this package adds to Detectron2's."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

from .training_defaults import add_engine_keys

__all__ = ["add_retinanet_ext_config", "get_cfg"]


def add_retinanet_ext_config(cfg: CfgNode) -> None:
    """Add this package's keys to ``cfg``; keys that exist already keep their values.

    Every key of Detectron2 keeps its name, meaning and default.
    """
    retinanet = cfg.MODEL.RETINANET
    # Entry of DENSE_HEAD_REGISTRY.
    _add(retinanet, "HEAD", "RetinaNetHead")
    # Channels of its NUM_CONVS convolutions; 0: as many as the features have.
    _add(retinanet, "HEAD_WIDTH", 0)
    # What of NORM differs between levels. "auto": the statistics of BN and SyncBN (Detectron2);
    # "shared": nothing; "per_level": each level has a norm of its own, affine parameters and all.
    _add(retinanet, "NORM_PER_LEVEL", "auto")
    # One box per anchor (the paper), or with False one for each class.
    _add(retinanet, "CLS_AGNOSTIC_BBOX_REG", True)
    # "" or what the head predicts of each box beside its deltas: its "iou" with the object, or the
    # "centerness" of its anchor in the object (ATSS, FCOS). Scores are then sqrt(class * quality).
    _add(retinanet, "QUALITY_BRANCH", "")
    # Parts that are not trained, batch norms included: "backbone" (what is under the pyramid),
    # "fpn" (the pyramid), "head", or parts of the head by name: "cls_subnet", "bbox_subnet",
    # "cls_score", "bbox_pred", "quality_pred", and "subnet" of SharedTowerHead.
    _add(retinanet, "FREEZE", [])
    # Entry of ASSIGNER_REGISTRY.
    _add(retinanet, "ASSIGNER", "IoUAssigner")
    # The anchors with the best IoU of each object are positive even below IOU_THRESHOLDS. The paper
    # has no such rule; Detectron2 has it fixed to True.
    _add(retinanet, "ALLOW_LOW_QUALITY_MATCHES", True)
    # ATSSAssigner (arXiv 1912.02424): candidate locations per object and level, the paper's k. It
    # reads neither IOU_THRESHOLDS, IOU_LABELS nor ALLOW_LOW_QUALITY_MATCHES.
    _add(retinanet, "ATSS_TOPK", 9)
    # Background anchors of which at least this share of the area lies in a box marked `iscrowd` or
    # `ignore` take part in no loss. Above 1 is off, as in Detectron2: crowds are background, and
    # `ignore` means nothing.
    _add(retinanet, "IGNORE_IOF_THRESH", 0.5)
    # A positive anchor also learns the classes of boxes whose IoU with its own box is above this,
    # in (0, 1]; 1 is off.
    _add(retinanet, "MULTI_LABEL_IOU_THRESH", 1.0)
    # Entry of CLS_LOSS_REGISTRY; FocalLoss reads FOCAL_LOSS_ALPHA (the paper's alpha) and
    # FOCAL_LOSS_GAMMA (gamma). Detectron2's BBOX_REG_LOSS_TYPE chooses the box loss: its own names
    # (smooth_l1, giou, diou, ciou) or any entry of BOX_LOSS_REGISTRY.
    _add(retinanet, "CLS_LOSS", "FocalLoss")
    # How the focal loss is computed: "auto" makes loss and gradient in one pass over the logits, by
    # a Triton kernel on CUDA where it runs, else chunk by chunk; "triton" and "chunked" ask for one
    # of these; "reference" is the readable definition with autograd. Equal within float rounding.
    _add(retinanet, "LOSS_KERNEL", "auto")

    # From this number of classes on, training computes the last classification convolution and the
    # focal loss piece by piece, so that the logits never exist as a whole; 0 is always, -1 never.
    _add(retinanet, "FUSED_CLS_LOSS_MIN_CLASSES", 400)
    # BalancedBCE reads FOCAL_LOSS_ALPHA, BCE neither. FocalLossStar, Appendix A of the paper: gamma
    # (> 0) and beta of sigmoid(gamma x_t + beta); the paper has 2 with 1, and 4 with 0.
    _add(retinanet, "FOCAL_STAR_GAMMA", 2.0)
    _add(retinanet, "FOCAL_STAR_BETA", 1.0)
    # Weight of its positives, 1 minus it of its negatives; -1, the paper's equation, is no weight.
    _add(retinanet, "FOCAL_STAR_ALPHA", -1.0)
    # OHEM, hard example mining in each image (Sec. 5.1): "topk" takes the hardest anchors, "ratio"
    # a number of negatives for each positive.
    _add(retinanet, "OHEM_MODE", "topk")
    # Anchors taken per image (the paper: 128, 256, 512); 0 with "ratio": all positives, as in SSD.
    _add(retinanet, "OHEM_BATCH", 128)
    # An anchor whose IoU with a harder one is above this is left out (the paper: 0.5, 0.7); 1
    # leaves out none, as in SSD.
    _add(retinanet, "OHEM_NMS_THRESH", 0.5)
    # "ratio": negatives per positive, and how many to take in an image with no or few positives.
    _add(retinanet, "OHEM_NEG_POS_RATIO", 3.0)
    _add(retinanet, "OHEM_MIN_NEG", 3)
    # ClassBalancedFocal: where the alpha of each class comes from. "given": CLASS_ALPHA. "inverse"
    # and "effective": FOCAL_LOSS_ALPHA, larger for classes with few objects in CLASS_COUNTS, by one
    # over their number or over their effective number (arXiv 1901.05555).
    _add(retinanet, "CLASS_BALANCE", "effective")
    # K numbers each, in the order of the classes: alphas in [0, 1]; objects in the training set,
    # where [] has them counted (crowds left out) when training starts.
    _add(retinanet, "CLASS_ALPHA", [])
    _add(retinanet, "CLASS_COUNTS", [])
    # beta of the effective number, in [0, 1): 0 weighs all classes alike, near 1 is "inverse".
    _add(retinanet, "CLASS_BALANCE_BETA", 0.999)
    # QualityFocalLoss: exponent of |IoU - score| (arXiv 2006.04388, beta; 0 or at least 1).
    _add(retinanet, "QUALITY_FOCAL_BETA", 2.0)
    # VarifocalLoss: weight of negatives, and exponent of their score (arXiv 2008.13367).
    _add(retinanet, "VARIFOCAL_ALPHA", 0.75)
    _add(retinanet, "VARIFOCAL_GAMMA", 2.0)
    # What the box loss is multiplied by, before the normalizer: the lambda of multi-task losses.
    _add(retinanet, "BOX_LOSS_WEIGHT", 1.0)
    # What both losses are divided by, counted over all processes: "running_mean" of the number of
    # positive anchors (Detectron2), "positives" of the batch (the paper), all "anchors" of the
    # batch, or "constant": LOSS_NORMALIZER_VALUE.
    _add(retinanet, "LOSS_NORMALIZER", "running_mean")
    _add(retinanet, "LOSS_NORMALIZER_VALUE", 100.0)

    # NMS among boxes of one class ("per_class"), among all ("class_agnostic"), or "soft": boxes of
    # one class lower each other's scores, and those still above SCORE_THRESH_TEST are kept.
    _add(retinanet, "NMS_KIND", "per_class")
    # How "soft" lowers the score of a box, by its IoU with a better one: "gaussian" by
    # exp(-IoU^2 / SOFT_NMS_SIGMA), "linear" by 1 - IoU where the IoU is NMS_THRESH_TEST or more.
    _add(retinanet, "SOFT_NMS_METHOD", "gaussian")
    _add(retinanet, "SOFT_NMS_SIGMA", 0.5)

    # How the network is computed. All but AUTOCAST give the same numbers within float rounding.
    _add(cfg.MODEL, "SPEEDUPS", CfgNode())
    speedups = cfg.MODEL.SPEEDUPS
    # Multiply FrozenBatchNorm2d into the convolution before it, at run time.
    _add(speedups, "FOLD_FROZEN_BN", True)
    # Winograd's algorithm for large 3x3 convolutions on the CPU.
    _add(speedups, "WINOGRAD", True)
    # In training on the CPU, compute the box subnet only around positive anchors, the only ones in
    # the box loss. Not with COMPILE or AUTOCAST, nor where the head's NORM needs whole maps.
    _add(speedups, "SPARSE_BOX_SUBNET", True)
    # Where the channels_last memory format is used: "all", "backbone", "none", or "auto" (backbone
    # on the CPU, else none).
    _add(speedups, "CHANNELS_LAST", "auto")
    # torch.compile for backbone and head; each input size is compiled anew. COMPILE_MODE is
    # "default", "reduce-overhead" (CUDA graphs) or "max-autotune".
    _add(speedups, "COMPILE", False)
    _add(speedups, "COMPILE_MODE", "default")
    # "" or "bfloat16": the precision of backbone and head on CPU or CUDA, losses in float32.
    _add(speedups, "AUTOCAST", "")

    anchors = cfg.MODEL.ANCHOR_GENERATOR
    # Read by RetinaNetAnchorGenerator in place of SIZES. Smallest anchor of each feature level:
    # square root of its area, in pixels of the network's input.
    _add(anchors, "OCTAVE_BASE_SIZES", [32.0, 64.0, 128.0, 256.0, 512.0])
    # Number of sizes per level, 2^(i/S) times the base.
    _add(anchors, "SCALES_PER_OCTAVE", 3)
    # The same for each level apart, such as [3, 3, 3, 2, 1]; [] is SCALES_PER_OCTAVE at all levels.
    # ASPECT_RATIOS may also be one list per level; levels may differ in their number of anchors.
    _add(anchors, "SCALES_OF_LEVELS", [])

    fpn = cfg.MODEL.FPN
    # Both read by build_fpn_backbone_p6p7 alone. The backbone under the pyramid: an entry of
    # Detectron2's BACKBONE_REGISTRY, such as build_resnet_backbone or build_regnet_backbone.
    _add(fpn, "BOTTOM_UP", "build_resnet_backbone")
    # What P6 is computed from: "c5", the last of FPN.IN_FEATURES (the paper), or "p5", its level of
    # the pyramid.
    _add(fpn, "TOP_BLOCK_IN", "c5")

    # Read by build_regnet_backbone, arXiv 2003.13678, Sec. 3.3; these are RegNetX-4GF.
    _add(cfg.MODEL, "REGNET", CfgNode())
    regnet = cfg.MODEL.REGNET
    # Blocks in all; width of the first, slope of the widths, and their ratio between stages.
    _add(regnet, "DEPTH", 23)
    _add(regnet, "W_0", 96)
    _add(regnet, "W_A", 38.65)
    _add(regnet, "W_M", 2.43)
    # Channels per group of the 3x3 convolutions.
    _add(regnet, "GROUP_WIDTH", 40)
    # Squeeze-and-excitation width as a share of the block's: 0 in RegNetX, 0.25 in RegNetY.
    _add(regnet, "SE_RATIO", 0.0)
    _add(regnet, "STEM_WIDTH", 32)
    # See MODEL.RESNETS.NORM.
    _add(regnet, "NORM", "FrozenBN")
    # Of "stem" (stride 2), "s1" (4), "s2" (8), "s3" (16), "s4" (32).
    _add(regnet, "OUT_FEATURES", ["s2", "s3", "s4"])

    datasets = cfg.DATASETS
    # Datasets by path, to be named in TRAIN and TEST; --train and --val write entries of their own.
    # Each is a dict with NAME, ANNOTATIONS (file or folder) and where needed IMAGES (folder),
    # FORMAT (coco, voc, yolo, csv; else found out), CLASSES (file with a row "name" or "name,id"
    # per class, for VOC and CSV), SUBSET (list of a YOLO data.yaml: train, val, test), SPLIT (train
    # or val: a share of the images), ONE_BASED (False: VOC coordinates are pixel edges from 0).
    _add(datasets, "EXTRA", [])
    # Read for EXTRA, in this order. Lists of a new name and the old ones: [[cell, RBC, WBC]].
    _add(datasets, "MERGE_CLASSES", [])
    # Names whose boxes are left out, and become background.
    _add(datasets, "DROP_CLASSES", [])
    # The model's classes in their order, others are left out; [] takes all that the data has.
    _add(datasets, "CLASSES", [])
    # Share of the images with SPLIT: val, in [0, 1), chosen by file name and seed; with 0, --train
    # alone trains on all and evaluates nothing.
    _add(datasets, "VAL_FRACTION", 0.2)
    _add(datasets, "SPLIT_SEED", 0)
    # Folder for annotations that were read; "" is ~/.cache/retinanet_ext (or $XDG_CACHE_HOME),
    # "none" keeps none.
    _add(datasets, "CACHE_DIR", "")

    # Augmentations of training, in their order: names, or dicts {NAME: ..., PROB: ..., ...}, as in
    # [{NAME: Mosaic, PROB: 0.5}, Default, RandomBrightness]. "Default" is what Detectron2 does by
    # itself: INPUT.CROP, resize, flip; a list without it does neither. See data/augment/ops.py.
    _add(cfg.INPUT, "AUG", ["Default"])
    # Boxes of which less than this share of the area is left, after crops, become background; in
    # [0, 1). 0, as in Detectron2, drops only those that are gone.
    _add(cfg.INPUT, "AUG_MIN_VISIBLE", 0.0)

    # What training does with an image that cannot be loaded: "fail" stops at the first one; "skip"
    # logs it and takes another at random, and stops if more than 1% are bad (and at least 10
    # files), counted in each worker. Evaluation always stops.
    _add(cfg.DATALOADER, "ON_ERROR", "fail")

    solver = cfg.SOLVER
    # SGD (MOMENTUM, NESTEROV) or AdamW.
    _add(solver, "OPTIMIZER", "SGD")
    # LR_SCHEDULER_NAME also takes OneCycleLR: a cosine rise from WARMUP_FACTOR * BASE_LR to BASE_LR
    # over this share of MAX_ITER, then a cosine fall to BASE_LR_END.
    _add(solver, "ONE_CYCLE_PCT_START", 0.3)

    add_engine_keys(cfg)


def _add(node: CfgNode, key: str, default: Any) -> None:
    if key not in node:
        node[key] = default


def get_cfg() -> CfgNode:
    """Detectron2's default config with this package's keys added."""
    cfg = get_detectron2_cfg()
    add_retinanet_ext_config(cfg)
    return cfg
