"""Checks of the config keys of a training step: SOLVER.ACCUM_STEPS, AMP, MAX_SKIPPED_BATCHES."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

from ..errors import did_you_mean

__all__ = ["PRECISIONS", "check_amp_device", "check_parts", "check_step"]

PRECISIONS = ("float16", "bfloat16")


def check_step(cfg: CfgNode, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise on settings of a training step that would be ignored or cannot work.

    Args:
        cfg: the config.
        values, defaults: flat, by full name.

    Raises:
        ValueError: names the key, its value and the way out.
    """
    solver = cfg.SOLVER
    if solver.ACCUM_STEPS < 1:
        raise ValueError(f"SOLVER.ACCUM_STEPS must be at least 1, got {solver.ACCUM_STEPS}")
    check_parts(cfg, 1)
    if solver.MAX_SKIPPED_BATCHES < 0:
        raise ValueError(
            f"SOLVER.MAX_SKIPPED_BATCHES is {solver.MAX_SKIPPED_BATCHES}; set it to 0 to stop at "
            "the first loss that is not finite, or to the number of batches to leave out"
        )
    precision, autocast = solver.AMP.PRECISION, cfg.MODEL.SPEEDUPS.AUTOCAST
    if precision not in PRECISIONS:
        raise ValueError(
            f"SOLVER.AMP.PRECISION is '{precision}'; set it to one of {', '.join(PRECISIONS)}."
            f"{did_you_mean(precision, PRECISIONS)}"
        )
    if not solver.AMP.ENABLED and precision != defaults["SOLVER.AMP.PRECISION"]:
        raise ValueError(
            f"SOLVER.AMP.PRECISION is '{precision}', but without SOLVER.AMP.ENABLED nothing reads "
            "it; set SOLVER.AMP.ENABLED True"
        )
    if solver.AMP.ENABLED and autocast and autocast != precision:
        raise ValueError(
            f"SOLVER.AMP.PRECISION is '{precision}' and MODEL.SPEEDUPS.AUTOCAST '{autocast}', "
            "which would win; set AUTOCAST to '' or both to the same"
        )


def check_parts(cfg: CfgNode, world_size: int) -> None:
    """Check that each process's share of a batch splits into ``SOLVER.ACCUM_STEPS`` equal parts.

    Args:
        cfg: the config; with ``SOLVER.REFERENCE_WORLD_SIZE``, as written for so many processes.
        world_size: the number of processes.

    Raises:
        ValueError: it does not.
    """
    processes = cfg.SOLVER.REFERENCE_WORLD_SIZE or world_size
    batch, parts = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUM_STEPS
    if parts > 1 and batch % (processes * parts):
        raise ValueError(
            f"SOLVER.ACCUM_STEPS is {parts}, but SOLVER.IMS_PER_BATCH {batch} over {processes} "
            "process(es) does not split into so many equal parts; IMS_PER_BATCH, the images per "
            f"optimizer step, must be a multiple of {processes * parts}"
        )


def check_amp_device(cfg: CfgNode, device_type: str) -> None:
    """Check that ``SOLVER.AMP`` can run on a kind of device.

    Args:
        cfg: the config.
        device_type: such as ``"cpu"``.

    Raises:
        ValueError: it cannot.
    """
    amp = cfg.SOLVER.AMP
    if not amp.ENABLED or device_type == "cuda":
        return
    if device_type != "cpu":
        raise ValueError(
            f"SOLVER.AMP.ENABLED is True but the model runs on '{device_type}'; mixed precision "
            "needs cuda or cpu, so set SOLVER.AMP.ENABLED False"
        )
    if amp.PRECISION != "bfloat16":
        raise ValueError(
            f"SOLVER.AMP.ENABLED is True with SOLVER.AMP.PRECISION '{amp.PRECISION}', but the "
            "model runs on the CPU, where float16 has no scaled loss; set SOLVER.AMP.PRECISION "
            "bfloat16, or SOLVER.AMP.ENABLED False"
        )
