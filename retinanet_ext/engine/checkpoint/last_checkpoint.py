"""Chooses the checkpoint to resume from: the newest intact one."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection
from typing import Any

from detectron2.utils import comm

from ...files import find_damage
from ...weights.checks import not_finite
from ...weights.reading import WeightsError, read_weights

logger = logging.getLogger(__name__)

TAG = "last_checkpoint"
"""File with the name of the checkpoint to resume from, as in Detectron2."""

_NUMBERED = re.compile(r"model_(\d+)\.pth")
BEST = "model_best.pth"
_UNNUMBERED = ("model_final.pth", BEST)


def numbered_name(iteration: int) -> str:
    """Name without ending of the checkpoint after ``iteration``, counted from 0."""
    return f"model_{iteration:07d}"


def read_tag(folder: str) -> str | None:
    """Name of the file that ``last_checkpoint`` names; None if there is no such tag."""
    try:
        with open(os.path.join(folder, TAG), errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def numbered_checkpoints(folder: str) -> dict[int, str]:
    """Paths of the files ``model_0000099.pth`` in ``folder`` by iteration, in rising order."""
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    found = {int(match[1]): match[0] for name in names if (match := _NUMBERED.fullmatch(name))}
    return {iteration: os.path.join(folder, found[iteration]) for iteration in sorted(found)}


def candidates(folder: str) -> list[str]:
    """Paths of the checkpoints to resume from, the one to try first in front.

    They are what ``last_checkpoint`` names, even if it does not exist; the numbered ones before it,
    the newest first; the numbered ones after it, also the newest first; ``model_final``;
    ``model_best``.
    """
    name, numbered = read_tag(folder), numbered_checkpoints(folder)
    match = _NUMBERED.fullmatch(name) if name else None
    last = int(match[1]) if match else max(numbered, default=0)
    newest_first = sorted(numbered, key=lambda x: (x > last, -x))
    paths = [] if name is None else [os.path.join(folder, name)]
    paths += [numbered[iteration] for iteration in newest_first]
    others = [os.path.join(folder, x) for x in _UNNUMBERED]
    paths += [path for path in others if os.path.isfile(path)]
    return list(dict.fromkeys(paths))


def read_last_checkpoint(folder: str, states: Collection[str]) -> tuple[str, dict[str, Any]]:
    """Read the first of :func:`candidates` that is intact; warn if it is not the first one.

    Args:
        folder: ``OUTPUT_DIR``.
        states: names of what training saves beside the model. A checkpoint with none of them is
            one of weights only, from which training cannot continue; () accepts it.

    Returns:
        Its path and content.

    Raises:
        WeightsError: there is none; names each that was tried, and what is wrong with it.
    """
    problems = []
    if read_tag(folder) is None:
        problems.append(f"{os.path.join(folder, TAG)} is missing")
    for path in candidates(folder):
        problem, content = _examine(path, states)
        if content is not None:
            if problems:
                logger.warning("%s; resuming from %s instead", "; ".join(problems), path)
            _look_at_best(os.path.join(folder, BEST), path)
            return path, content
        problems.append(f"{path} {problem}")
    raise WeightsError(
        f"'{folder}' has no checkpoint to resume from: {'; '.join(problems)}. Put an intact one "
        f"there and its name into {TAG}, or start again without --resume"
    )


def _look_at_best(path: str, resumed: str) -> None:
    """Warn where the best model so far is damaged: nothing else reads it before the run ends."""
    if path == resumed or not os.path.isfile(path):
        return
    problem, _ = _examine(path, ())
    if problem:
        logger.warning(
            "%s %s; it is written again only when a later evaluation is better: put an intact copy "
            "there, or delete it",
            path,
            problem,
        )


def choose_checkpoint(folder: str, states: Collection[str]) -> tuple[str, dict[str, Any] | None]:
    """:func:`read_last_checkpoint` in the main process, whose choice is that of all.

    Returns:
        Its path and, in the main process, its content.

    Raises:
        WeightsError: in all processes: there is none, or some process does not see the file.
    """
    chosen, content, error = "", None, None
    if comm.is_main_process():
        try:
            chosen, content = read_last_checkpoint(folder, states)
        except WeightsError as caught:
            error = caught
    chosen, error = comm.all_gather((chosen, error))[0]
    if error is not None:
        raise error
    if not all(comm.all_gather(os.path.isfile(chosen))):
        raise WeightsError(
            f"not all processes of this job see '{chosen}': OUTPUT_DIR must be one folder that "
            "all machines share"
        )
    return chosen, content


def _examine(path: str, states: Collection[str]) -> tuple[str, dict[str, Any] | None]:
    """What is wrong with a checkpoint, or its content."""
    if not os.path.isfile(path):
        return f"does not exist, but {TAG} names it", None
    try:
        damage = find_damage(path)
        if damage:
            return damage, None
        content = read_weights(path)
    except WeightsError as error:
        text = str(error).removeprefix(f"'{path}' ").removesuffix("; download it again")
        return text, None
    except OSError as error:
        return f"cannot be read ({error.strerror or error})", None
    if states and not any(name in content for name in states):
        return f"holds only weights, and not the state of training ({', '.join(states)})", None
    bad = not_finite(content["model"]) if isinstance(content["model"], dict) else []
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        return f"holds weights that are not finite ({bad[0]}{more})", None
    return "", content
