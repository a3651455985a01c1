"""The whole of it: from what the command line says to a config file, and the words at the end."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ..data.datasets.bad_pictures import require_pictures_open
from ..data.datasets.by_path import register_extra_datasets
from ..data.datasets.command_line import describe_rows
from ..errors import count
from ..files import write_text
from .choose import Measure, Wishes, choose_recipe
from .draft import Draft
from .facts import data_facts, look_around
from .written import FILE_NAME, as_table, as_yaml

__all__ = ["default_output_dir", "last_words", "make_recipe", "recipe_file"]

Show = Callable[[str], object]


def recipe_file(output_dir: str) -> str:
    """Where the recipe of a run is."""
    return os.path.join(output_dir, FILE_NAME)


def default_output_dir(data: str) -> str:
    """``output/NAME`` for data of that name, such as the folder or the file without suffix."""
    path = os.path.abspath(os.path.expanduser(data))
    name = os.path.basename(path)
    return os.path.join("output", (name if os.path.isdir(path) else os.path.splitext(name)[0]))


def make_recipe(
    cfg: CfgNode,
    given: set[str],
    wishes: Wishes,
    measure: Measure,
    spent: Callable[[], float],
    command: Sequence[str],
    gpus: int = 1,
    show: Show = print,
) -> str:
    """Choose everything, show the table, and return the text of the yaml.

    Args:
        cfg: the defaults with the user's keys, datasets and device; is changed.
        given: full names of the user's keys.
        wishes: minutes or epochs, and a preset.
        measure: see :func:`.pace.measure_pace`.
        spent: seconds since the command began.
        command: its words, for the file.
        gpus: how many are used.
        show: takes what the user is to read.

    Raises:
        UserError: what is wrong with the data or the wishes.
    """
    register_extra_datasets(cfg)
    if cfg.DATALOADER.ON_ERROR == "fail":  # else the training would find it, minutes later
        require_pictures_open(cfg.DATASETS.TRAIN + cfg.DATASETS.TEST)
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    draft = Draft(cfg, given)
    draft.note("MODEL.DEVICE", "MODEL.RETINANET.NUM_CLASSES")
    data = data_facts(cfg)
    show(describe_rows(cfg, data.images, data.val_images))
    if both := _in_both(cfg):
        show(
            f"warning: {both} of {count(data.val_images, 'validation picture')} "
            f"{'is' if both == 1 else 'are'} trained on, too, so AP will be too good; name others "
            "with --val"
        )
    show(f"{count(len(data.class_names), 'class', 'classes')}: {', '.join(data.class_names)}")
    cfg.MODEL.RETINANET.NUM_CLASSES = len(data.class_names)
    machine = look_around(cfg.MODEL.DEVICE, gpus)
    if machine.device == "cpu":  # also where it asks for a GPU and there is none
        cfg.MODEL.DEVICE = "cpu"
    choose_recipe(draft, data, machine, wishes, measure, spent)
    assert names == [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST], "choices leave the datasets alone"
    show("")
    show(as_table(draft.choices))
    show("")
    return as_yaml(draft, shlex.join(command))


def _in_both(cfg: CfgNode) -> int:
    """How many files are pictures of the training and of the validation set."""
    train, val = (
        {os.path.realpath(x["file_name"]) for name in names for x in DatasetCatalog.get(name)}
        for names in (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    )
    return len(train & val)


def save_recipe(output_dir: str, text: str) -> str:
    """Write the yaml and return its path."""
    os.makedirs(output_dir, exist_ok=True)
    path = recipe_file(output_dir)
    write_text(path, text)
    return path


def last_words(output_dir: str) -> list[str]:
    """What the user reads when all is done: AP, and what to do with the model.

    Args:
        output_dir: of a run that is over.
    """
    best = _best(os.path.join(output_dir, "evaluations.json"))
    lines = []
    if best:
        iteration, metrics = best
        ap, ap50 = (metrics[f"{_prefix(metrics)}{name}"] for name in ("AP", "AP50"))
        lines.append(
            f"best model: {os.path.join(output_dir, 'model_best.pth')}, AP {ap:.1f}, "
            f"AP50 {ap50:.1f} after {iteration + 1} iterations"
        )
    which = " --weights best" if best else ""
    words = f"retinanet-ext predict {shlex.quote(output_dir)} PICTURES{which} --output found"
    lines.append(f"use it: {words}")
    return lines


def _best(path: str) -> tuple[int, dict[str, Any]] | None:
    """Iteration and metrics of the best evaluation that is on file."""
    try:
        with open(path) as file:
            rows = json.load(file)
        found = [(x["iteration"], x["metrics"]) for x in rows]
        measured = [x for x in found if isinstance(x[1].get(f"{_prefix(x[1])}AP"), (int, float))]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return max(measured, key=lambda x: x[1][f"{_prefix(x[1])}AP"]) if measured else None


def _prefix(metrics: dict[str, Any]) -> str:
    return "ema/bbox/" if "ema/bbox/AP" in metrics else "bbox/"
