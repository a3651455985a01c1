"""The config keys of training: SOLVER, TEST and what a run writes."""

from __future__ import annotations

import math

from .key import Section

run = Section()
solver = Section("SOLVER")
clipping = Section("SOLVER.CLIP_GRADIENTS")
amp = Section("SOLVER.AMP")
ema = Section("SOLVER.EMA")
test = Section("TEST")
tiles = Section("TEST.TILES")
merge = Section("TEST.MERGE")

# SGD (MOMENTUM, NESTEROV) or AdamW.
solver.add("OPTIMIZER", "SGD", choices=("SGD", "AdamW"))
solver.rule("IMS_PER_BATCH", above=0)
solver.rule("BASE_LR", above=0, below=math.inf)
# LR_SCHEDULER_NAME also takes OneCycleLR: a cosine rise from WARMUP_FACTOR * BASE_LR to BASE_LR
# over this fraction of MAX_ITER, then a cosine fall to BASE_LR_END.
solver.rule(
    "LR_SCHEDULER_NAME",
    choices=("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR", "OneCycleLR"),
)
solver.add(
    "ONE_CYCLE_PCT_START",
    0.3,
    above=0,
    below=1,
    meaning="the fraction of MAX_ITER spent rising",
    only_with=("LR_SCHEDULER_NAME", "OneCycleLR"),
)

# What --resume does with a larger MAX_ITER after the schedule had come to its end: "continue" on
# the longer curve, of which OneCycleLR and WarmupCosineLR have only the tail left, or "restart": a
# whole new schedule over the iterations that are left, which warm-up and STEPS count from.
solver.add("RESUME_SCHEDULE", "continue", choices=("continue", "restart"))

# Lengths in epochs, whole or not; None or 0 is off. An epoch is the images of DATASETS.TRAIN,
# without those that are filtered out, over IMS_PER_BATCH. Each takes the place of a key in
# iterations, in this order: MAX_ITER, STEPS, WARMUP_ITERS, CHECKPOINT_PERIOD, and
# TEST.EVAL_PERIOD. The others need EPOCHS; with only it, STEPS at Detectron2's default are
# none, and the rest keeps its iterations. None because yacs takes both 12 and 0.5 for it.
solver.add("EPOCHS", None)
solver.add("STEPS_EPOCHS", ())
solver.add("WARMUP_EPOCHS", None)
solver.add("CHECKPOINT_EPOCHS", None)
test.add("EVAL_EPOCHS", None)
# Images per batch that BASE_LR and BASE_LR_END are meant for: both are multiplied by
# IMS_PER_BATCH over it, the linear scaling rule (arXiv 1706.02677). 0: used as they are.
solver.add(
    "BASE_LR_BATCH",
    0,
    at_least=0,
    meaning="the number of images per batch that BASE_LR is meant for, or 0 to use it as it is",
)
# Learning rate of a layer of the backbone over that of the layer above it, in (0, 1]; layers
# are the stem and each stage, or each block of a transformer. Pyramid and head have BASE_LR.
# 1.0 is off.
solver.add(
    "LAYER_LR_DECAY",
    1.0,
    above=0,
    at_most=1,
    meaning="the learning rate of a backbone's layer over that of the next; 1.0 is off",
)
# CLIP_GRADIENTS.CLIP_TYPE also takes "full_model": the norm (NORM_TYPE) of all gradients
# together is at most CLIP_VALUE. Detectron2's "norm" is that of each parameter separately.
clipping.rule(
    "CLIP_TYPE",
    choices=("value", "norm", "full_model"),
    only_with=("SOLVER.CLIP_GRADIENTS.ENABLED", True),
)

# The same numbers from each run, in bits, on the same machine with the same software, processes
# and threads; slower on GPUs. Needs SEED; an operation without a deterministic way stops the
# run.
run.add("DETERMINISTIC", False)
# Parts that each process's part of a batch goes through the network in, one after the other.
# The optimizer steps once for all, so IMS_PER_BATCH, learning rate and schedule stay the same.
solver.add("ACCUM_STEPS", 1, at_least=1)
# With SOLVER.AMP.ENABLED, what the network computes in: "float16" with a scaled loss, only on
# CUDA, or "bfloat16", on CPU and CUDA.
amp.add(
    "PRECISION", "float16", choices=("float16", "bfloat16"), only_with=("SOLVER.AMP.ENABLED", True)
)
# Steps of the whole run that are left out where a loss or a gradient is not finite. 0: the first
# one ends the run, before it reaches the weights.
solver.add(
    "MAX_SKIPPED_BATCHES",
    0,
    at_least=0,
    meaning="the number of batches to leave out, or 0 to stop at the first loss that is not finite",
)
# Services that the curves also go to, when a run trains: "wandb" (Weights & Biases), "mlflow".
# The run's name there is OUTPUT_DIR's, the project's that of the folder above. metrics.json and
# TensorBoard need no entry.
run.add("WRITERS", [], choices=("wandb", "mlflow"))

# Checkpoints with a number that are kept, the newest ones; 0 keeps all. With 2 or more there is
# one to continue from if the last is damaged. model_final and model_best do not count.
solver.add(
    "CHECKPOINTS_KEPT",
    0,
    at_least=0,
    meaning="the number of checkpoints to keep, or 0 to keep all",
)

# EMA: an exponential moving average of the weights, evaluated beside them as "ema/bbox/AP" etc.
ema.add("ENABLED", False)
# Share of the average that stays at each step, in [0, 1).
ema.add(
    "DECAY",
    0.999,
    at_least=0,
    below=1,
    meaning="the fraction of the average that stays at each step, for example 0.999",
    only_with=("SOLVER.EMA.ENABLED", True),
)
# After n steps at most (1 + n) / (10 + n), so that the first weights do not stay for long.
ema.add("WARMUP", True, only_with=("SOLVER.EMA.ENABLED", True))
# With TEST.EVAL_PERIOD, the result that says which model is kept as model_best.pth; "" keeps
# none. The smallest is best where the name contains "loss". With several test sets, results
# are named after them, as in coco_2017_val/bbox/AP.
test.add("BEST_METRIC", "bbox/AP")
# Evaluations in a row without a better BEST_METRIC before training ends; 0 is never.
test.add(
    "EARLY_STOPPING_PATIENCE",
    0,
    at_least=0,
    meaning="a number of evaluations, or 0 to train to the end",
)
# Whether evaluation also measures the losses of training on DATASETS.TEST, without
# augmentation, per positive anchor: val_loss/total, val_loss/cls, val_loss/box_reg.
test.add("VAL_LOSS", False)
# Whether a training ends with a report on each of DATASETS.TEST: report.html beside its detections.
test.add("REPORT", True)

# Height and width, or one number for both, of the tiles that a larger picture is cut into, in its
# pixels; each is resized as a picture would be. () is the picture as a whole.
tiles.add("SIZE", ())
# Share of a tile that the next one sees too, in [0, 1); objects should be smaller than that.
tiles.add("OVERLAP", 0.3, at_least=0, below=1, meaning="the share of a tile that two tiles see")
# The same in pixels; 0: OVERLAP.
tiles.add("OVERLAP_PIXELS", 0, at_least=0, meaning="pixels that two tiles see, or 0 for OVERLAP")
# Whether the picture as a whole goes through the network too, for what is larger than a tile.
tiles.add("FULL_IMAGE", True)
# Tiles, or views of TEST.AUG, that go through the network at once.
tiles.add("BATCH", 4, at_least=1, meaning="the number of tiles that are computed at once")
# How detections of several tiles or views become one: "" by NMS as of one picture, NMS_KIND; "nms",
# "soft" (soft-NMS), "wbf" (weighted boxes fusion), "none".
merge.add("KIND", "", choices=("", "nms", "soft", "wbf", "none"))
# Their IoU from which they are one; None: NMS_THRESH_TEST.
merge.add("THRESH", None)
# With NMS and soft-NMS: the IoU from which boxes of an object in several tiles or views are
# averaged, weighted by scores; 0: never.
merge.add("AVERAGE", 0.7, at_least=0, below=1, meaning="an IoU, or 0 to average no boxes")
