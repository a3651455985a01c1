"""The config keys of the detector: MODEL.RETINANET, its anchors, and how it is computed.

What only one component reads is declared by that component, in its ``config_keys``.
"""

from __future__ import annotations

from .key import Section

retinanet = Section("MODEL.RETINANET")
retinanet.rule(
    "NUM_CLASSES", at_least=1, meaning="the number of object classes, without background"
)
retinanet.rule("NUM_CONVS", at_least=0, meaning="the number of convolutions in a tower")
# Entry of DENSE_HEAD_REGISTRY.
retinanet.add("HEAD", "RetinaNetHead")
# Channels of its NUM_CONVS convolutions; 0: as many as the features have.
retinanet.add(
    "HEAD_WIDTH",
    0,
    at_least=0,
    meaning="a number of channels, or 0 for as many as the features have",
)
# What of NORM differs between levels. "auto": the statistics of BN and SyncBN (Detectron2);
# "shared": nothing; "per_level": each level has a norm of its own, affine parameters and all.
retinanet.add("NORM_PER_LEVEL", "auto", choices=("auto", "shared", "per_level"))
# One box per anchor (the paper), or with False one for each class.
retinanet.add("CLS_AGNOSTIC_BBOX_REG", True)
# Entry of BOX_CODER_REGISTRY, what the numbers of a box mean: "deltas" of R-CNN (the paper), or
# "ltrb", distances to the four edges (FCOS).
retinanet.add("BOX_CODER", "deltas")
# What an anchor's class outputs are: a "sigmoid" for each class (the paper), or one "softmax" over
# the classes and the background (SSD), with SoftmaxCE, SoftmaxFocalLoss or OHEM as its loss.
retinanet.add("CLASSIFIER", "sigmoid", choices=("sigmoid", "softmax"))
# "" or what the head predicts of each box beside its deltas: its "iou" with the object, or the
# "centerness" of its anchor in the object (ATSS, FCOS), both learned by anchors with an object; or
# its "objectness", whether its anchor has an object (YOLO), learned by all that are not ignored.
retinanet.add("QUALITY_BRANCH", "", choices=("", "iou", "centerness", "objectness"))
# With it, the score of a detection out of p of its class and q of its quality: sqrt(p * q), p * q
# (YOLO), or only p.
retinanet.add("SCORE_RULE", "sqrt_pq", choices=("sqrt_pq", "pq", "p"))
# With it, what the candidates for detections are chosen by, in SCORE_THRESH_TEST and
# TOPK_CANDIDATES_TEST: the score of their "class" only, or as in FCOS the whole "score".
retinanet.add("CANDIDATES_BY", "class", choices=("class", "score"))
# Parts that are not trained, batch norms included: "backbone" (what is under the pyramid),
# "fpn" (the pyramid), "head", or parts of the head by name: "cls_subnet", "bbox_subnet",
# "cls_score", "bbox_pred", "quality_pred", and "subnet" of SharedTowerHead.
retinanet.add("FREEZE", [])
# Entry of ASSIGNER_REGISTRY.
retinanet.add("ASSIGNER", "IoUAssigner")
# The anchors with the best IoU of each object are positive even below IOU_THRESHOLDS. The paper
# has no such rule; Detectron2 has it fixed to True.
retinanet.add("ALLOW_LOW_QUALITY_MATCHES", True)
# ATSSAssigner (arXiv 1912.02424): candidate locations per object and level, the paper's k. It
# reads neither IOU_THRESHOLDS, IOU_LABELS nor ALLOW_LOW_QUALITY_MATCHES.
retinanet.add("ATSS_TOPK", 9)
# PointAssigner (FCOS): how near to the centre of an object a location has to lie, in strides; 0
# is anywhere in the object.
retinanet.add("CENTER_SAMPLING_RADIUS", 1.5)
# And between what numbers of strides of a level the farthest edge of its objects lies, with no
# limit below at the finest level and none above at the coarsest.
retinanet.add("REGRESSION_RANGE", [4.0, 8.0])
# TaskAlignedAssigner (TOOD, arXiv 2108.07755): anchors per object, those of the largest alignment
# score^alpha * IoU^beta of what they predict.
retinanet.add("TASK_ALIGNED_TOPK", 13, at_least=1, meaning="a number of anchors per object")
retinanet.add("TASK_ALIGNED_ALPHA", 1.0, at_least=0, meaning="the exponent of the score")
retinanet.add("TASK_ALIGNED_BETA", 6.0, at_least=0, meaning="the exponent of the IoU")
# Background anchors of which at least this fraction of the area lies in a box marked `iscrowd` or
# `ignore` take part in no loss. Above 1 is off, as in Detectron2: crowds are background, and
# `ignore` means nothing.
retinanet.add(
    "IGNORE_IOF_THRESH",
    0.5,
    above=0,
    meaning="a fraction of the anchor's area in (0, 1], or 2.0 to learn crowds as background",
)
# A positive anchor also learns the classes of boxes whose IoU with its own box is above this,
# in (0, 1]; 1 is off.
retinanet.add("MULTI_LABEL_IOU_THRESH", 1.0)
# Entry of CLS_LOSS_REGISTRY; FocalLoss reads FOCAL_LOSS_ALPHA (the paper's alpha) and
# FOCAL_LOSS_GAMMA (gamma). Detectron2's BBOX_REG_LOSS_TYPE chooses the box loss: its own names
# (smooth_l1, giou, diou, ciou) or any entry of BOX_LOSS_REGISTRY.
retinanet.add("CLS_LOSS", "FocalLoss")
# How the focal loss is computed: "auto" makes loss and gradient in one pass over the logits, by
# a Triton kernel on CUDA where it runs, else chunk by chunk; "triton" and "chunked" ask for one
# of these; "reference" is the readable definition with autograd. Equal within float rounding.
retinanet.add("LOSS_KERNEL", "auto", choices=("auto", "reference", "chunked", "triton"))

# From this number of classes on, training computes the last classification convolution and the
# focal loss piece by piece, so that the logits never exist as a whole; 0 is always, -1 never.
retinanet.add(
    "FUSED_CLS_LOSS_MIN_CLASSES",
    400,
    at_least=-1,
    meaning="a number of classes, 0 for always, -1 for never",
)
# BalancedBCE reads FOCAL_LOSS_ALPHA, BCE neither. FocalLossStar, Appendix A of the paper: gamma
# (> 0) and beta of sigmoid(gamma x_t + beta); the paper has 2 with 1, and 4 with 0.
retinanet.add("FOCAL_STAR_GAMMA", 2.0)
retinanet.add("FOCAL_STAR_BETA", 1.0)
# Weight of its positives, 1 minus it of its negatives; -1, the paper's equation, is no weight.
retinanet.add("FOCAL_STAR_ALPHA", -1.0)
# OHEM, hard example mining in each image (Sec. 5.1): "topk" takes the hardest anchors, "ratio"
# a number of negatives for each positive.
retinanet.add("OHEM_MODE", "topk", choices=("topk", "ratio"))
# Anchors taken per image (the paper: 128, 256, 512); 0 with "ratio": all positives, as in SSD.
retinanet.add("OHEM_BATCH", 128)
# An anchor whose IoU with a harder one is above this is left out (the paper: 0.5, 0.7); 1
# leaves out none, as in SSD.
retinanet.add("OHEM_NMS_THRESH", 0.5)
# "ratio": negatives per positive, and how many to take in an image with no or few positives.
retinanet.add("OHEM_NEG_POS_RATIO", 3.0)
retinanet.add("OHEM_MIN_NEG", 3)
# ClassBalancedFocal: where the alpha of each class comes from. "given": CLASS_ALPHA. "inverse"
# and "effective": FOCAL_LOSS_ALPHA, larger for classes with few objects in CLASS_COUNTS, by one
# over their number or over their effective number (arXiv 1901.05555).
retinanet.add("CLASS_BALANCE", "effective", choices=("given", "inverse", "effective"))
# K numbers each, in the order of the classes: alphas in [0, 1]; objects in the training set,
# where [] has them counted (crowds left out) when training starts.
retinanet.add("CLASS_ALPHA", [])
retinanet.add("CLASS_COUNTS", [])
# beta of the effective number, in [0, 1): 0 weighs all classes alike, near 1 is "inverse".
retinanet.add("CLASS_BALANCE_BETA", 0.999)
# FederatedFocal (arXiv 2103.07461): classes in the loss of a step, those of the batch and others,
# drawn by their number of images, CLASS_COUNTS, to this power.
retinanet.add("FEDERATED_CLASSES", 50)
retinanet.add("FEDERATED_POWER", 0.5, at_least=0, meaning="a number of at least 0")
# QualityFocalLoss: exponent of |IoU - score| (arXiv 2006.04388, beta; 0 or at least 1).
retinanet.add("QUALITY_FOCAL_BETA", 2.0)
# VarifocalLoss: weight of negatives, and exponent of their score (arXiv 2008.13367).
retinanet.add("VARIFOCAL_ALPHA", 0.75)
retinanet.add("VARIFOCAL_GAMMA", 2.0)
# HeatmapFocal (CenterNet): exponent of 1 minus the heat of a negative; FOCAL_LOSS_GAMMA is that of
# its score. Without a heat map, as in RetinaNet, nothing depends on it.
retinanet.add("HEATMAP_FOCAL_BETA", 4.0)
# What the box loss is multiplied by, before the normalizer: the lambda of multi-task losses.
retinanet.add("BOX_LOSS_WEIGHT", 1.0)
# What both losses are divided by, counted over all processes: "running_mean" of the number of
# positive anchors (Detectron2), "positives" of the batch (the paper), all "anchors" of the
# batch, or "constant": LOSS_NORMALIZER_VALUE.
retinanet.add(
    "LOSS_NORMALIZER", "running_mean", choices=("running_mean", "positives", "anchors", "constant")
)
retinanet.add("LOSS_NORMALIZER_VALUE", 100.0, only_with=("LOSS_NORMALIZER", "constant"))

# NMS among boxes of one class ("per_class"), among all ("class_agnostic"), or "soft": boxes of
# one class lower each other's scores, and those still above SCORE_THRESH_TEST are kept.
retinanet.add("NMS_KIND", "per_class", choices=("per_class", "class_agnostic", "soft"))
# How "soft" lowers the score of a box, by its IoU with a better one: "gaussian" by
# exp(-IoU^2 / SOFT_NMS_SIGMA), "linear" by 1 - IoU where the IoU is NMS_THRESH_TEST or more.
retinanet.add(
    "SOFT_NMS_METHOD", "gaussian", choices=("gaussian", "linear"), only_with=("NMS_KIND", "soft")
)
retinanet.add("SOFT_NMS_SIGMA", 0.5, only_with=("NMS_KIND", "soft"))

# Whether boxes are cut to the image before NMS (torchvision, mmdet), not only after it.
retinanet.add("CLIP_BEFORE_NMS", False)

# How the network is computed. All but AUTOCAST give the same numbers within float rounding.
speedups = Section("MODEL.SPEEDUPS")
# Multiply FrozenBatchNorm2d into the convolution before it, at run time.
speedups.add("FOLD_FROZEN_BN", True)
# Other algorithms on the CPU: Winograd's for large 3x3 convolutions and, on one thread with
# AVX-512, oneDNN's for 1x1 convolutions.
speedups.add("WINOGRAD", True)
# In training on the CPU, compute the box subnet only around positive anchors, the only ones in
# the box loss. Not with COMPILE or AUTOCAST, nor where the head's NORM needs whole maps.
speedups.add("SPARSE_BOX_SUBNET", True)
# Where the channels_last memory format is used: "all", "backbone", "none", or "auto" (backbone
# on the CPU, all on GPUs from Ampere on, none on older ones).
speedups.add("CHANNELS_LAST", "auto", choices=("auto", "all", "backbone", "none"))
# torch.compile for backbone and head; each input size is compiled again. COMPILE_MODE is
# "default", "reduce-overhead" (CUDA graphs) or "max-autotune".
speedups.add("COMPILE", False)
speedups.add("COMPILE_MODE", "default", choices=("default", "reduce-overhead", "max-autotune"))
# "", "bfloat16" or, for inference, "float16": the precision of backbone and head on CPU or CUDA,
# losses in float32. "auto": in `predict`, `serve` and the Predictor bfloat16 where the processor
# computes with it (AVX512_BF16, AMX, Ampere and later), in training and evaluation float32.
speedups.add("AUTOCAST", "", choices=("", "auto", "bfloat16", "float16"))

anchors = Section("MODEL.ANCHOR_GENERATOR")
# Read by RetinaNetAnchorGenerator in place of SIZES. Smallest anchor of each feature level:
# square root of its area, in pixels of the network's input. [] is SIZES, which need be no octaves.
anchors.add("OCTAVE_BASE_SIZES", [32.0, 64.0, 128.0, 256.0, 512.0])
# Number of sizes per level, 2^(i/S) times the base.
anchors.add("SCALES_PER_OCTAVE", 3)
# The same per level, such as [3, 3, 3, 2, 1]; [] is SCALES_PER_OCTAVE at all levels.
# ASPECT_RATIOS may also be one list per level; levels may differ in their number of anchors.
anchors.add("SCALES_OF_LEVELS", [])

# Read by RetinaNetAnchorGenerator in place of sizes and ratios, with OCTAVE_BASE_SIZES []: the
# anchors of one location, a list of [x1, y1, x2, y2] for each level, in pixels of the network's
# input from the location, as other toolkits round or shift them.
anchors.add("CELL_ANCHORS", [])
