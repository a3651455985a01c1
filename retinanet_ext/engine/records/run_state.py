"""What the checkpoint of a run holds beside Detectron2's state, and what is made of it again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from ...data.loading.stream import TrainStream
from .config_changes import config_changes
from .event_state import storage_state

__all__ = ["continue_data", "events_of", "run_state", "warn_of_changes"]

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
    """The curves of a checkpoint; {} of one of Detectron2."""
    events = state.get("events", {})
    # Detectron2's timer leaves out the first iterations of each start. An old time would come
    # as a line of its own, and this may be another machine.
    events.get("scalars", {}).pop("time", None)
    return events


def continue_data(data: Any, state: Mapping[str, Any]) -> None:
    """Put a :class:`TrainStream` where the checkpoint was; warn of what starts from the first."""
    if isinstance(data, TrainStream) and "data" in state:
        data.load_state_dict(state["data"])
    else:
        logger.warning(
            "the checkpoint does not say which images come next: training starts again at the "
            "first ones"
        )


def warn_of_changes(state: Mapping[str, Any], cfg: CfgNode) -> None:
    """Warn, in the main process, of keys that have other values than in the checkpoint."""
    changes = config_changes(state["config"], cfg) if "config" in state else []
    if changes and comm.is_main_process():
        logger.warning(
            "this run continues with another config than its checkpoint has:\n  %s",
            "\n  ".join(changes),
        )
