"""The config keys of the training loop: SOLVER, TEST and what a run writes."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

__all__ = ["add_engine_keys"]


def add_engine_keys(cfg: CfgNode) -> None:
    """Add the keys of the training loop; keys that exist already keep their values."""
    solver = cfg.SOLVER
    # Lengths in epochs, whole or not; None or 0 is off. An epoch is the images of DATASETS.TRAIN,
    # without those that are filtered out, over IMS_PER_BATCH. Each takes the place of a key in
    # iterations, in this order: MAX_ITER, STEPS, WARMUP_ITERS, CHECKPOINT_PERIOD, and
    # TEST.EVAL_PERIOD. The others need EPOCHS; with it alone, STEPS at Detectron2's default are
    # none, and the rest keeps its iterations. None because yacs takes both 12 and 0.5 for it.
    _add(solver, "EPOCHS", None)
    _add(solver, "STEPS_EPOCHS", ())
    _add(solver, "WARMUP_EPOCHS", None)
    _add(solver, "CHECKPOINT_EPOCHS", None)
    _add(cfg.TEST, "EVAL_EPOCHS", None)
    # Images per batch that BASE_LR and BASE_LR_END are meant for: both are multiplied by
    # IMS_PER_BATCH over it, the linear scaling rule (arXiv 1706.02677). 0: used as they are.
    _add(solver, "BASE_LR_BATCH", 0)
    # Learning rate of a layer of the backbone over that of the layer above it, in (0, 1]; layers
    # are the stem and each stage, or each block of a transformer. Pyramid and head have BASE_LR.
    # 1.0 is off.
    _add(solver, "LAYER_LR_DECAY", 1.0)
    # CLIP_GRADIENTS.CLIP_TYPE also takes "full_model": the norm (NORM_TYPE) of all gradients
    # together is at most CLIP_VALUE. Detectron2's "norm" is that of each parameter apart.

    # The same numbers from each run, in bits, on the same machine with the same software, processes
    # and threads; slower on GPUs. Needs SEED; an operation without a deterministic way stops the
    # run.
    _add(cfg, "DETERMINISTIC", False)
    # Parts that each process's share of a batch goes through the network in, one after the other.
    # The optimizer steps once for all, so IMS_PER_BATCH, learning rate and schedule stay the same.
    _add(solver, "ACCUM_STEPS", 1)
    # With SOLVER.AMP.ENABLED, what the network computes in: "float16" with a scaled loss, on CUDA
    # alone, or "bfloat16", on CPU and CUDA.
    _add(solver.AMP, "PRECISION", "float16")
    # Steps of the whole run that are left out where a loss or a gradient is not finite. 0, as in
    # Detectron2: the first such loss ends the run, and gradients are not looked at.
    _add(solver, "MAX_SKIPPED_BATCHES", 0)
    # Services that the curves also go to, when a run trains: "wandb" (Weights & Biases), "mlflow".
    # The run's name there is OUTPUT_DIR's, the project's that of the folder above. metrics.json and
    # TensorBoard need no entry.
    _add(cfg, "WRITERS", [])

    # Checkpoints with a number that are kept, the newest ones; 0 keeps all. With 2 or more there is
    # one to go on from if the last is damaged. model_final and model_best do not count.
    _add(solver, "CHECKPOINTS_KEPT", 0)

    # EMA: an exponential moving average of the weights, evaluated beside them as "ema/bbox/AP" etc.
    _add(solver, "EMA", CfgNode())
    _add(solver.EMA, "ENABLED", False)
    # Share of the average that stays at each step, in [0, 1).
    _add(solver.EMA, "DECAY", 0.999)
    # After n steps at most (1 + n) / (10 + n), so that the first weights do not stay for long.
    _add(solver.EMA, "WARMUP", True)
    # With TEST.EVAL_PERIOD, the result that says which model is kept as model_best.pth; "" keeps
    # none. The smallest is best where the name contains "loss". With several test sets, results
    # are named after them, as in coco_2017_val/bbox/AP.
    _add(cfg.TEST, "BEST_METRIC", "bbox/AP")
    # Evaluations in a row without a better BEST_METRIC before training ends; 0 is never.
    _add(cfg.TEST, "EARLY_STOPPING_PATIENCE", 0)
    # Whether evaluation also measures the losses of training on DATASETS.TEST, without
    # augmentation, per positive anchor: val_loss/total, val_loss/cls, val_loss/box_reg.
    _add(cfg.TEST, "VAL_LOSS", False)


def _add(node: CfgNode, key: str, default: Any) -> None:
    if key not in node:
        node[key] = default
