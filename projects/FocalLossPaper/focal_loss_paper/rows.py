"""The paper's tables, and the config that each of their rows stands for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.data.datasets.register import load_class_names
from retinanet_ext.engine.setup import merge_opts
from retinanet_ext.errors import ConfigError, InputError, did_you_mean

PROJECT = Path(__file__).resolve().parents[1]
ROOT = PROJECT.parents[1]
CONFIGS = PROJECT / "configs"
PUBLISHED = PROJECT / "published.json"

# Datasets with a base of their own; any other is trained as the paper trains COCO.
SMALL_BASES = {
    "quickstart": ROOT / "configs" / "quickstart.yaml",
    "quickstart_hard": ROOT / "configs" / "quickstart_hard.yaml",
    "bccd": ROOT / "configs" / "bccd_R_18_FPN.yaml",
}
PAPER_SCALE = 600  # px, shorter side, of the paper's base; table 1e's scales are relative to it
DEPTHS = (18, 34, 50, 101, 152)
WARMUP_SHARE = 0.1  # of the iterations, at most
CHECKPOINTS = 4  # per run, at least


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        config: name of its file in configs/, without ``.yaml``.
        label: what the tables call it.
        published: the paper's numbers: AP, AP50, AP75, and in table 1e APs, APm, APl, ms. Some or
            all are missing where the paper has none.
        diverged: whether it diverged in the paper.
    """

    config: str
    label: str
    published: dict[str, float] = field(default_factory=dict)
    diverged: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the paper whose rows can be trained."""

    name: str
    title: str
    question: str
    split: str
    model: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Setting:
    """What all rows have in common.

    Attributes:
        dataset: NAME of the registered NAME_train and NAME_val.
        base: config file that the rows' own keys are merged into; None is the paper's setting, the
            ``_BASE_`` of the rows' files.
        iterations: SOLVER.MAX_ITER; None is the base's.
        opts: KEY VALUE KEY VALUE ..., merged last.
    """

    dataset: str
    base: Path | None = None
    iterations: int | None = None
    opts: Sequence[str] = ()


def load_tables() -> dict[str, Table]:
    """The trainable tables of published.json, by name; table 2 has no rows to train."""
    tables = {}
    for name, content in json.loads(PUBLISHED.read_text(encoding="utf-8"))["tables"].items():
        if all("config" in row for row in content["rows"]):
            rows = tuple(_row(row) for row in content["rows"])
            words = {key: content[key] for key in ("title", "question", "split", "model")}
            tables[name] = Table(name, rows=rows, **words)
    return tables


def _row(content: dict[str, Any]) -> Row:
    numbers = {k: float(v) for k, v in content.items() if type(v) in (int, float)}
    return Row(content["config"], content["label"], numbers, content.get("diverged", False))


def default_base(dataset: str) -> Path | None:
    """The config file that ``dataset`` is trained with, None for the paper's setting."""
    return SMALL_BASES.get(dataset)


def build_cfg(config: str, setting: Setting) -> CfgNode:
    """The checked config of a row, without SEED and OUTPUT_DIR.

    Raises:
        KeyError, ValueError, OSError: names the key, the value or the file.
    """
    cfg = get_cfg()
    leaf = CONFIGS / f"{config}.yaml"
    if setting.base is None:
        load_config_file(cfg, leaf)
    else:
        load_config_file(cfg, setting.base)
        merge_row(cfg, own_keys(leaf))
    train = f"{setting.dataset}_train"
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (train,), (f"{setting.dataset}_val",)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        if name not in DatasetCatalog:
            raise ConfigError(
                f"--dataset {setting.dataset}: '{name}' is not registered."
                f"{did_you_mean(name, DatasetCatalog.list())} Register it at the top of a copy of "
                "train_net.py and give that as --train-net"
            )
    classes = load_class_names(train)
    if classes:
        cfg.MODEL.RETINANET.NUM_CLASSES = len(classes)
    scale_schedule(cfg, setting.iterations or cfg.SOLVER.MAX_ITER)
    merge_opts(cfg, setting.opts)
    validate_cfg(cfg)
    return cfg


def own_keys(leaf: Path) -> dict[str, Any]:
    """The keys of one yaml file without those of its ``_BASE_``."""
    keys = yaml.safe_load(leaf.read_text(encoding="utf-8"))
    keys.pop("_BASE_", None)
    return keys


def merge_row(cfg: CfgNode, keys: dict[str, Any]) -> None:
    """Merge a row's own keys into a base other than the paper's.

    Depth and scale (table 1e) are taken relative to the paper's base: depth 50 is the base's depth
    and 101 the next deeper network; 600 px are the base's sizes. Weights for another depth are of
    no use to a base that starts from random ones.
    """
    keys = json.loads(json.dumps(keys))  # a deep copy of plain values
    model = keys.get("MODEL", {})
    depth = model.get("RESNETS", {}).pop("DEPTH", None)
    scale = keys.pop("INPUT", {}).get("MIN_SIZE_TEST")
    if not cfg.MODEL.WEIGHTS:
        model.pop("WEIGHTS", None)
    if not model.get("RESNETS", True):
        model.pop("RESNETS")
    cfg.merge_from_other_cfg(CfgNode(keys))
    if depth is not None:
        _deepen(cfg, steps=DEPTHS.index(depth) - DEPTHS.index(50))
    if scale is not None:
        _rescale(cfg, scale / PAPER_SCALE)


def _deepen(cfg: CfgNode, steps: int) -> None:
    node = cfg.MODEL.RESNETS
    deeper = DEPTHS.index(node.DEPTH) + steps
    if deeper >= len(DEPTHS):
        raise InputError(
            f"MODEL.RESNETS.DEPTH of the base is {node.DEPTH} and this row takes the next deeper "
            f"ResNet; choose a base with one of {', '.join(map(str, DEPTHS[:-1]))}"
        )
    node.DEPTH = DEPTHS[deeper]
    # Detectron2: these have basic blocks, which do not widen their input fourfold.
    node.RES2_OUT_CHANNELS = 64 if node.DEPTH < 50 else 256


def _rescale(cfg: CfgNode, factor: float) -> None:
    def fit(size: int) -> int:
        # Sizes that pad little, and no change at all for the base's own scale.
        return size if factor == 1 else max(32, 16 * round(size * factor / 16))

    node = cfg.INPUT
    node.MIN_SIZE_TRAIN = tuple(fit(size) for size in node.MIN_SIZE_TRAIN)
    for key in ("MAX_SIZE_TRAIN", "MIN_SIZE_TEST", "MAX_SIZE_TEST"):
        node[key] = fit(node[key])


def scale_schedule(cfg: CfgNode, iterations: int) -> None:
    """Train for ``iterations``, with the base's learning rates at the same shares of the time."""
    if iterations < 1:
        raise InputError(f"--iters must be at least 1, got {iterations}")
    solver = cfg.SOLVER
    solver.STEPS = tuple(step * iterations // solver.MAX_ITER for step in solver.STEPS)
    solver.MAX_ITER = iterations
    if solver.LR_SCHEDULER_NAME != "OneCycleLR":  # which has a warm-up of its own, a share
        solver.WARMUP_ITERS = min(solver.WARMUP_ITERS, int(iterations * WARMUP_SHARE))
    solver.CHECKPOINT_PERIOD = max(1, min(solver.CHECKPOINT_PERIOD, iterations // CHECKPOINTS))
