"""The config keys of the model: MODEL.

What only one component reads is declared by that component, in its ``config_keys``.
"""

from __future__ import annotations

from .keys import Section

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

fpn = Section("MODEL.FPN")
# All read only by build_fpn_backbone_p6p7. The backbone under the pyramid: an entry of
# Detectron2's BACKBONE_REGISTRY, such as build_resnet_backbone or build_regnet_backbone.
fpn.add("BOTTOM_UP", "build_resnet_backbone")
# What P6 is computed from: "c5", the last of FPN.IN_FEATURES (the paper), or "p5", its level of
# the pyramid.
fpn.add("TOP_BLOCK_IN", "c5", choices=("c5", "p5"))
# Whether a ReLU stands between P6 and P7 (the paper; mmdet has none).
fpn.add("TOP_BLOCK_RELU", True)

resnets = Section("MODEL.RESNETS")
# Read by build_fpn_backbone_p6p7 over a ResNet: what its batch norms add to the variance (0 in
# torchvision's first RetinaNet).
resnets.add("NORM_EPS", 1e-5, at_least=0, below=1)

# Read by build_regnet_backbone, arXiv 2003.13678, Sec. 3.3; these are RegNetX-4GF.
regnet = Section("MODEL.REGNET")
# Blocks in all; width of the first, slope of the widths, and their ratio between stages.
regnet.add("DEPTH", 23)
regnet.add("W_0", 96)
regnet.add("W_A", 38.65)
regnet.add("W_M", 2.43)
# Channels per group of the 3x3 convolutions.
regnet.add("GROUP_WIDTH", 40)
# Squeeze-and-excitation width as a fraction of the block's: 0 in RegNetX, 0.25 in RegNetY.
regnet.add("SE_RATIO", 0.0)
regnet.add("STEM_WIDTH", 32)
# See MODEL.RESNETS.NORM.
regnet.add("NORM", "FrozenBN")
# Of "stem" (stride 2), "s1" (4), "s2" (8), "s3" (16), "s4" (32).
regnet.add("OUT_FEATURES", ["s2", "s3", "s4"])

# Read by the backbones of EfficientNet-Lite: "FrozenBN" is for pretrained weights, "BN" and its
# kin over several GPUs for random ones, "" is none.
lite = Section("MODEL.EFFICIENTNET_LITE")
lite.add(
    "NORM",
    "FrozenBN",
    choices=("FrozenBN", "BN", "SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N", ""),
)

# Read by build_timm_backbone and build_timm_fpn_p6p7: a network of timm by its name.
timm = Section("MODEL.TIMM")
timm.add("NAME", "")
# Whether timm fetches its weights, or a file of them; either only without MODEL.WEIGHTS.
timm.add("PRETRAINED", False)
timm.add("CHECKPOINT", "")
# timm's numbers of the outputs; [] is all.
timm.add("OUT_INDICES", [])

# Read by build_vit_simple_pyramid; this is ViTDet's ViT-B. All blocks but GLOBAL_BLOCKS attend to
# windows of WINDOW_SIZE x WINDOW_SIZE patches only; IMG_SIZE sizes the relative positions.
vit = Section("MODEL.VIT")
for _name, _default in {
    **{"IMG_SIZE": 1024, "PATCH_SIZE": 16, "EMBED_DIM": 768, "DEPTH": 12, "NUM_HEADS": 12},
    **{"DROP_PATH": 0.1, "WINDOW_SIZE": 14, "GLOBAL_BLOCKS": [2, 5, 8, 11], "REL_POS": True},
}.items():
    vit.add(_name, _default)

# Read by build_swin_backbone; this is Swin-T. Outputs are "p0" (stride 4) to "p3" (32).
swin = Section("MODEL.SWIN")
for _name, _default in {
    **{"EMBED_DIM": 96, "DEPTHS": [2, 2, 6, 2], "NUM_HEADS": [3, 6, 12, 24], "WINDOW_SIZE": 7},
    **{"DROP_PATH": 0.2, "OUT_FEATURES": ["p1", "p2", "p3"]},
}.items():
    swin.add(_name, _default)
