"""Whether a checkpoint is of the model and the classes that a run would continue with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.utils import comm
from torch import nn

from ...errors import TrainingFailed, listed
from ...weights.reading import CLASSES_KEY, WeightsError

MAX_NAMES = 5  # in an error


def require_same_model(
    path: str, checkpoint: Mapping[str, Any], model: nn.Module, names: Sequence[str] = ()
) -> None:
    """Check that a checkpoint is of this model and, where given, of these classes.

    Args:
        path, checkpoint: the file and its content.
        model: what would be loaded from it.
        names: of the training's classes; () compares none.

    Raises:
        WeightsError: it is not, with what differs.
    """
    require_same_classes(path, checkpoint.get(CLASSES_KEY), names)
    require_same_shapes(path, checkpoint["model"], model)


def require_same_classes(path: str, saved: Any, names: Sequence[str]) -> None:
    """Check that row k of the checkpoint's classifier is of class k of the data.

    Names are equal if they differ in case or surrounding space only. Nothing is compared where one
    of the two is unknown.

    Args:
        path: of the checkpoint.
        saved: names of its classes.
        names: those of ``DATASETS.TRAIN``.

    Raises:
        WeightsError: there are other classes, or the same ones in another order.
    """
    known = isinstance(saved, (list, tuple)) and all(isinstance(x, str) for x in saved)
    if not known or not saved or not names or _keys(saved) == _keys(names):
        return
    new = [x for x in names if _key(x) not in _keys(saved)]
    gone = [x for x in saved if _key(x) not in _keys(names)]
    parts = [f"new: {listed(new, MAX_NAMES)}"] if new else []
    parts += [f"no longer there: {listed(gone, MAX_NAMES)}"] if gone else []
    if not parts:
        parts = [f"the order was {listed(saved, MAX_NAMES)} and is {listed(names, MAX_NAMES)}"]
    raise WeightsError(
        f"--resume continues with the same classes in the same order, but '{path}' was trained on "
        f"other ones than DATASETS.TRAIN has ({'; '.join(parts)}); to start from its weights, "
        f"which are matched by class name, set MODEL.WEIGHTS '{path}' and another OUTPUT_DIR, "
        "without --resume"
    )


def require_same_shapes(path: str, weights: Mapping[str, Any], model: nn.Module) -> None:
    """Check that the weights of a checkpoint have the shapes of the model's.

    Raises:
        WeightsError: names the first one that has not.
    """
    state = model.state_dict()
    wrong = [
        (name, tuple(value.shape), tuple(state[name].shape))
        for name, value in weights.items()
        if name in state and hasattr(value, "shape") and value.shape != state[name].shape
    ]
    if wrong:
        name, theirs, ours = wrong[0]
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise WeightsError(
            f"'{path}' is of another model: {name} has the shape {theirs} in it and {ours} in the "
            f"model of this config{more}; resume with the config that it was trained with, or set "
            f"MODEL.WEIGHTS '{path}' and another OUTPUT_DIR, without --resume"
        )


def _key(name: str) -> str:
    return name.strip().casefold()


def _keys(names: Sequence[str]) -> list[str]:
    return [_key(name) for name in names]


def require_same_start(iteration: int, output_dir: str) -> None:
    """Check that all processes of a job start at the same iteration; called by all of them.

    Args:
        iteration: where this process would start.
        output_dir: of the job.

    Raises:
        TrainingFailed: they found different checkpoints.
    """
    starts = comm.all_gather(iteration)
    if len(set(starts)) > 1:
        raise TrainingFailed(
            f"the processes of this job would start at iterations {starts}: OUTPUT_DIR "
            f"'{output_dir}' must be one folder that all machines share"
        )
