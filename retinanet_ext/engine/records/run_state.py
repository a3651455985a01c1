"""What the checkpoint of a run holds beside Detectron2's state, and what is made of it again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from ...data.loading.stream import TrainStream
from ...errors import one_line
from .config_changes import config_changes, saved_value
from .event_state import restore_storage, storage_state

__all__ = [
    "continue_data",
    "ended_at",
    "events_of",
    "run_state",
    "seed_of",
    "warn_of_changes",
]

logger = logging.getLogger(__name__)


def run_state(seed: int, storage: EventStorage, cfg: CfgNode, data: Any) -> dict[str, Any]:
    """Seed, curves, config and, of a :class:`TrainStream`, the position in the data."""
    state: dict[str, Any] = {
        "seed": seed,
        "events": storage_state(storage),
        "config": cfg.dump(),
    }
    if isinstance(data, TrainStream):
        state["data"] = data.state_dict()
    return state


def events_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """The curves of a checkpoint; {} of one of Detectron2, or of ones that cannot be used."""
    events = state.get("events", {})
    try:
        # Detectron2's timer leaves out the first iterations of each start. An old time would come
        # as a line of its own, and this may be another machine.
        events.get("scalars", {}).pop("time", None)
        restore_storage(EventStorage(), events)
    except Exception as error:  # of whatever is in someone else's file
        _leave_out("events", error, "the curves begin again")
        return {}
    return events


def seed_of(state: Mapping[str, Any], otherwise: int) -> int:
    """The run's seed in a checkpoint; ``otherwise`` where there is none, or none to use."""
    seed = state.get("seed", otherwise)
    if type(seed) is int and seed >= 0:
        return seed
    _leave_out("seed", f"it is {str(seed)[:40]!r}, no whole number from 0", f"{otherwise} is used")
    return otherwise


def continue_data(data: Any, state: Mapping[str, Any]) -> None:
    """Put a :class:`TrainStream` where the checkpoint was; warn of what starts from the first."""
    position = state.get("data")
    if position is not None and not _is_position(position):
        _leave_out("data", f"it is {str(position)[:40]!r}, no position in the data", "")
        position = None
    if isinstance(data, TrainStream) and position is not None:
        data.load_state_dict(position)
    else:
        logger.warning(
            "the checkpoint does not say which images come next: training starts again at the "
            "first ones"
        )


def ended_at(state: Mapping[str, Any]) -> int | None:
    """``SOLVER.MAX_ITER`` of the checkpoint's config; None of another trainer's, or an odd one."""
    try:
        return int(saved_value(state["config"], "SOLVER.MAX_ITER"))
    except (KeyError, ValueError, TypeError):
        return None  # said elsewhere


def warn_of_ended_schedule(state: Mapping[str, Any], cfg: CfgNode) -> None:
    """Warn where a run that had come to its end continues at the tail of a longer curve."""
    solver, ended = cfg.SOLVER, ended_at(state)
    if ended is None or solver.RESUME_SCHEDULE == "restart":
        return
    done = int(state["iteration"]) + 1
    falls = solver.LR_SCHEDULER_NAME in ("OneCycleLR", "WarmupCosineLR")
    if falls and done >= ended and done < solver.MAX_ITER and comm.is_main_process():
        logger.warning(
            "the schedule of the checkpoint had ended (SOLVER.MAX_ITER %d), and this run continues "
            "at iteration %d of the new %s curve of %d, where the learning rate has fallen and "
            "little is learned: for a whole new schedule over the iterations that are left, set "
            "SOLVER.RESUME_SCHEDULE restart",
            ended,
            done,
            solver.LR_SCHEDULER_NAME,
            solver.MAX_ITER,
        )


def warn_of_changes(state: Mapping[str, Any], cfg: CfgNode) -> None:
    """Warn, in the main process, of keys that have other values than in the checkpoint."""
    try:
        changes = config_changes(state["config"], cfg) if "config" in state else []
    except ValueError as error:
        _leave_out("config", error, "what differs from it is not known")
        return
    warn_of_ended_schedule(state, cfg)
    if changes and comm.is_main_process():
        logger.warning(
            "this run continues with another config than its checkpoint has:\n  %s",
            "\n  ".join(changes),
        )


def _is_position(value: Any) -> bool:
    known = isinstance(value, Mapping) and {"seed", "images"} <= value.keys()
    return known and all(type(x) is int and x >= 0 for x in value.values())


def _leave_out(name: str, reason: Exception | str, instead: str) -> None:
    text = one_line(reason)[:200] if isinstance(reason, Exception) else reason
    logger.warning(
        "the checkpoint's entry '%s' cannot be used (%s) and is left out%s",
        name,
        text,
        f": {instead}" if instead else "",
    )
