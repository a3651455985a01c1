"""What single keys of Detectron2's may be, and which of them only one choice of another key reads.

Detectron2 finds most of these mistakes too, but with a KeyError, an AssertionError or an image as
the only hint, and late.
"""

from __future__ import annotations

import math

from ..keys import Section

NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "LN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
"""What :func:`detectron2.layers.get_norm` knows."""

SAMPLERS = (
    "TrainingSampler",
    "RepeatFactorTrainingSampler",
    "RandomSubsetTrainingSampler",
    "WeightedTrainingSampler",
    "WeightedCategoryTrainingSampler",
)
"""What :func:`detectron2.data.build_detection_train_loader` knows."""

resnets = Section("MODEL.RESNETS")
# Not DEPTH and RES5_DILATION, of which the backbones of other projects know more values.
resnets.rule("NORM", choices=NORMS)
for key in ("NUM_GROUPS", "WIDTH_PER_GROUP", "RES2_OUT_CHANNELS", "STEM_OUT_CHANNELS"):
    resnets.rule(key, at_least=1)

fpn = Section("MODEL.FPN")
fpn.rule("NORM", choices=NORMS)
fpn.rule("OUT_CHANNELS", at_least=1)
fpn.rule("FUSE_TYPE", choices=("sum", "avg"))

anchors = Section("MODEL.ANCHOR_GENERATOR")
anchors.rule(
    "OFFSET", at_least=0, below=1, meaning="where the first anchor's centre lies, in strides"
)

inputs = Section("INPUT")
inputs.rule("MAX_SIZE_TRAIN", at_least=1, meaning="the longest side of an image, in pixels")
inputs.rule(
    "MIN_SIZE_TEST",
    at_least=0,
    meaning="the shortest side of an image, in pixels, or 0 for images as they are",
)
inputs.rule("MAX_SIZE_TEST", at_least=1, meaning="the longest side of an image, in pixels")
Section("INPUT.CROP").rule(
    "TYPE", choices=("relative_range", "relative", "absolute", "absolute_range")
)

loader = Section("DATALOADER")
loader.rule(
    "NUM_WORKERS",
    at_least=0,
    meaning="the number of processes that load images, or 0 to load them in the training process",
)
loader.rule("SAMPLER_TRAIN", choices=SAMPLERS)
loader.rule(
    "REPEAT_THRESHOLD",
    at_least=0,
    at_most=1,
    meaning="the share of images below which a class is repeated",
    only_with=("SAMPLER_TRAIN", ("RepeatFactorTrainingSampler", "WeightedCategoryTrainingSampler")),
)

solver = Section("SOLVER")
WARMS_UP = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")
solver.rule(
    "MOMENTUM",
    at_least=0,
    below=1,
    meaning="the share of the last step that the next one keeps, for example 0.9",
)
solver.rule("WEIGHT_DECAY", at_least=0, below=math.inf)
solver.rule("WEIGHT_DECAY_NORM", at_least=0, below=math.inf)
solver.rule("BIAS_LR_FACTOR", at_least=0, below=math.inf)
solver.rule("REFERENCE_WORLD_SIZE", at_least=0, meaning="a number of processes, or 0")
solver.rule(
    "GAMMA",
    above=0,
    below=math.inf,
    meaning="what each of STEPS multiplies the learning rate by",
    only_with=("LR_SCHEDULER_NAME", ("WarmupMultiStepLR", "WarmupStepWithFixedGammaLR")),
)
solver.rule("NUM_DECAYS", at_least=0, only_with=("LR_SCHEDULER_NAME", "WarmupStepWithFixedGammaLR"))
solver.rule("BASE_LR_END", only_with=("LR_SCHEDULER_NAME", ("WarmupCosineLR", "OneCycleLR")))
solver.rule("WARMUP_FACTOR", at_least=0, at_most=1, meaning="the share of BASE_LR to start from")
solver.rule(
    "WARMUP_METHOD", choices=("linear", "constant"), only_with=("LR_SCHEDULER_NAME", WARMS_UP)
)
solver.rule("RESCALE_INTERVAL", only_with=("LR_SCHEDULER_NAME", WARMS_UP))
clipping = Section("SOLVER.CLIP_GRADIENTS")
clipping.rule("CLIP_VALUE", above=0, only_with=("SOLVER.CLIP_GRADIENTS.ENABLED", True))
clipping.rule("NORM_TYPE", above=0, only_with=("CLIP_TYPE", ("norm", "full_model")))

aug = Section("TEST.AUG")
for key in ("MIN_SIZES", "FLIP"):
    aug.rule(key, only_with=("TEST.AUG.ENABLED", True))
aug.rule(
    "MAX_SIZE",
    at_least=1,
    meaning="the longest side of a view, in pixels",
    only_with=("TEST.AUG.ENABLED", True),
)

precise_bn = Section("TEST.PRECISE_BN")
precise_bn.rule(
    "NUM_ITER",
    at_least=1,
    meaning="the number of batches to take the statistics from",
    only_with=("TEST.PRECISE_BN.ENABLED", True),
)
Section().rule("VIS_PERIOD", at_least=0, meaning="a number of iterations, or 0 for never")
