"""Rules between keys of a run: the step, mixed precision, evaluation, determinism."""

from __future__ import annotations

from detectron2.config import CfgNode

from ..errors import InputError

__all__ = [
    "check_amp_device",
    "check_batch",
    "check_determinism",
    "check_evaluation",
    "check_parts",
    "check_step",
]


def check_evaluation(cfg: CfgNode, default_metric: str) -> None:
    """Raise on settings of TEST that would be ignored or cannot work.

    Args:
        cfg: the config.
        default_metric: ``TEST.BEST_METRIC`` where nobody sets it.

    Raises:
        InputError: names the key, its value and the fix.
    """
    test, metric = cfg.TEST, cfg.TEST.BEST_METRIC
    if test.VAL_LOSS and not cfg.DATASETS.TEST:
        raise InputError(
            "TEST.VAL_LOSS is True but DATASETS.TEST is empty; name a dataset there, or give --val"
        )
    parts = metric.split("/")
    if "ema" in parts and not cfg.SOLVER.EMA.ENABLED:
        raise InputError(
            f"TEST.BEST_METRIC is '{metric}', but without SOLVER.EMA.ENABLED there are no averaged "
            "weights to evaluate; set SOLVER.EMA.ENABLED True"
        )
    if "val_loss" in parts and not test.VAL_LOSS:
        raise InputError(
            f"TEST.BEST_METRIC is '{metric}', but without TEST.VAL_LOSS there is no validation "
            "loss; set TEST.VAL_LOSS True"
        )
    _check_patience(cfg)
    _check_size_test(cfg)
    chosen = test.EARLY_STOPPING_PATIENCE > 0 or metric != default_metric
    names = cfg.DATASETS.TEST
    if chosen and metric and len(names) > 1 and not any(x in metric for x in names):
        start = "ema/" if parts[0] == "ema" else ""
        raise InputError(
            f"TEST.BEST_METRIC is '{metric}', but with {len(names)} datasets in DATASETS.TEST "
            "results are named after them; set it to "
            f"'{start}{names[0]}/{metric.removeprefix('ema/')}' or that of another one"
        )


def _check_size_test(cfg: CfgNode) -> None:
    size = cfg.INPUT.SIZE_TEST
    if not size:
        return
    if len(size) != 2 or not all(type(x) is int and x > 0 for x in size):
        raise InputError(
            f"INPUT.SIZE_TEST is {list(size)}; set it to [height, width] in pixels, or to [] for "
            "MIN_SIZE_TEST and MAX_SIZE_TEST"
        )
    for key, on in (("TILES.SIZE", cfg.TEST.TILES.SIZE), ("AUG.ENABLED", cfg.TEST.AUG.ENABLED)):
        if on:
            raise InputError(
                f"INPUT.SIZE_TEST is {list(size)}, the size of every picture, but TEST.{key} is "
                f"{on!r}, which has sizes of its own; set one of the two to its default"
            )


def _check_patience(cfg: CfgNode) -> None:
    test = cfg.TEST
    patience = test.EARLY_STOPPING_PATIENCE
    if patience == 0:
        return
    lacks = ""
    if not test.BEST_METRIC:
        lacks = "TEST.BEST_METRIC is ''; name what has to get better, such as bbox/AP"
    elif test.EVAL_PERIOD <= 0 and not test.EVAL_EPOCHS:
        lacks = "TEST.EVAL_PERIOD is 0; set it to the iterations between two evaluations"
    elif not cfg.DATASETS.TEST:
        lacks = "DATASETS.TEST is empty; name a dataset to evaluate on"
    if lacks:
        raise InputError(f"TEST.EARLY_STOPPING_PATIENCE is {patience}, but {lacks}")


def check_step(cfg: CfgNode) -> None:
    """Raise on settings of a training step that contradict each other.

    Raises:
        InputError: names the key, its value and the fix.
    """
    check_parts(cfg, 1)
    amp, autocast = cfg.SOLVER.AMP, cfg.MODEL.SPEEDUPS.AUTOCAST
    if amp.ENABLED and autocast not in ("", "auto", amp.PRECISION):
        raise InputError(
            f"SOLVER.AMP.PRECISION is '{amp.PRECISION}' and MODEL.SPEEDUPS.AUTOCAST '{autocast}', "
            "which would win; set AUTOCAST to '' or both to the same"
        )


def check_batch(cfg: CfgNode, world_size: int) -> None:
    """Check that a batch splits into equal shares for all processes, and these into micro-batches.

    Args:
        cfg: the config; with ``SOLVER.REFERENCE_WORLD_SIZE``, Detectron2 scales the batch of so
            many processes to the true number by itself.
        world_size: the number of processes.

    Raises:
        InputError: it does not.
    """
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    divisor = reference or world_size
    if cfg.SOLVER.IMS_PER_BATCH % divisor:
        what = "SOLVER.REFERENCE_WORLD_SIZE is" if reference else "the number of processes is"
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH} but {what} {divisor}; the batch "
            "is the total over all processes and must be a multiple of it"
        )
    check_parts(cfg, world_size)


def check_parts(cfg: CfgNode, world_size: int) -> None:
    """Check that each process's part of a batch splits into ``SOLVER.ACCUM_STEPS`` equal parts.

    Args:
        cfg: the config; with ``SOLVER.REFERENCE_WORLD_SIZE``, as written for so many processes.
        world_size: the number of processes.

    Raises:
        InputError: it does not.
    """
    check_graphs(cfg)
    processes = cfg.SOLVER.REFERENCE_WORLD_SIZE or world_size
    batch, parts = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUM_STEPS
    if parts > 1 and batch % (processes * parts):
        raise InputError(
            f"SOLVER.ACCUM_STEPS is {parts}, but SOLVER.IMS_PER_BATCH {batch} over {processes} "
            "process(es) does not split into so many equal parts; IMS_PER_BATCH, the images per "
            f"optimizer step, must be a multiple of {processes * parts}"
        )


def check_graphs(cfg: CfgNode) -> None:
    """Check that CUDA graphs are not asked to add up the gradients of several parts of a batch.

    Raises:
        InputError: they are; each part would overwrite the gradients of the one before.
    """
    speedups, parts = cfg.MODEL.SPEEDUPS, cfg.SOLVER.ACCUM_STEPS
    if speedups.COMPILE and speedups.COMPILE_MODE == "reduce-overhead" and parts > 1:
        raise InputError(
            "MODEL.SPEEDUPS.COMPILE_MODE 'reduce-overhead' computes every part of a batch in the "
            f"same memory, so it cannot add up the gradients of SOLVER.ACCUM_STEPS {parts}; set "
            "COMPILE_MODE default, or ACCUM_STEPS 1"
        )


def check_amp_device(cfg: CfgNode, device_type: str) -> None:
    """Check that ``SOLVER.AMP`` can run on a kind of device.

    Args:
        cfg: the config.
        device_type: such as ``"cpu"``.

    Raises:
        InputError: it cannot.
    """
    amp = cfg.SOLVER.AMP
    if not amp.ENABLED or device_type == "cuda":
        return
    if device_type != "cpu":
        raise InputError(
            f"SOLVER.AMP.ENABLED is True but the model runs on '{device_type}'; mixed precision "
            "needs cuda or cpu, so set SOLVER.AMP.ENABLED False"
        )
    if amp.PRECISION != "bfloat16":
        raise InputError(
            f"SOLVER.AMP.ENABLED is True with SOLVER.AMP.PRECISION '{amp.PRECISION}', but the "
            "model runs on the CPU, where float16 has no scaled loss; set SOLVER.AMP.PRECISION "
            "bfloat16, or SOLVER.AMP.ENABLED False"
        )


def check_determinism(cfg: CfgNode) -> None:
    """Raise on settings that contradict DETERMINISTIC.

    Raises:
        InputError: there is no seed, or cuDNN is to choose its algorithms by their speed.
    """
    if not cfg.DETERMINISTIC:
        return
    if cfg.SEED < 0:
        raise InputError(
            f"DETERMINISTIC is True but SEED is {cfg.SEED}, which draws another seed for each run; "
            "set SEED to 0 or more"
        )
    if cfg.CUDNN_BENCHMARK:
        raise InputError(
            "DETERMINISTIC is True but so is CUDNN_BENCHMARK, which chooses algorithms by how "
            "fast they happen to be; set CUDNN_BENCHMARK False"
        )
