"""Runs: a row with a seed, its folder, and what became of it.

A run's folder is named by a hash of its settings, so changed settings are another run and equal
settings in two tables are one. ``result.json`` in it is written in one step when the run is over.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from retinanet_ext import files, get_cfg
from retinanet_ext.engine.records.last_metrics import last_metrics
from retinanet_ext.errors import InputError

from .rows import Setting, Table, build_cfg
from .settings import changed_keys, settings_hash

RESULT = "result.json"
CONSOLE = "console.txt"
LOG = "log.txt"  # all log lines, which the console shows only with --verbose
FINISHED, DIVERGED, FAILED, INTERRUPTED = "finished", "diverged", "failed", "interrupted"
TERMINAL = (FINISHED, DIVERGED)  # the others are tried again

# How Detectron2 ends a training whose loss is not finite.
_NOT_FINITE = re.compile(r"FloatingPointError|became infinite or NaN")
_ITERATION = re.compile(r"at iteration[ =]*(\d+)")
_PURE_COMPUTE = re.compile(r"pure compute time: .*?\(([\d.]+) s / iter")


@dataclass(frozen=True)
class Run:
    """A config to train with one seed.

    Attributes:
        config: name of the first row that has these settings.
        settings: the keys that differ from the package's defaults.
        seed: SEED.
        folder: OUTPUT_DIR.
    """

    config: str
    settings: dict[str, Any]
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.config} seed {self.seed}"

    @property
    def iterations(self) -> int:
        return int(self.settings.get("SOLVER.MAX_ITER", get_cfg().SOLVER.MAX_ITER))

    def result(self) -> dict[str, Any]:
        """The content of result.json, {} where there is none."""
        return read_json(self.folder / RESULT)


class RunIndex:
    """Finds the runs of rows, each config merged and hashed once."""

    def __init__(self, setting: Setting, folder: Path):
        """
        Args:
            setting: of all rows.
            folder: holds ``runs/``.
        """
        self.setting = setting
        self.runs_folder = Path(os.path.abspath(folder)) / "runs"
        self._settings: dict[str, dict[str, Any]] = {}
        self._first_config: dict[str, str] = {}

    def settings(self, config: str) -> dict[str, Any]:
        """The keys of a row's config that differ from the package's defaults."""
        if config not in self._settings:
            self._settings[config] = changed_keys(build_cfg(config, self.setting))
        return self._settings[config]

    def run(self, config: str, seed: int) -> Run:
        settings = self.settings(config)
        key = settings_hash(settings)
        name = self._folder_name(config, key)
        return Run(name.rpartition("-")[0], settings, seed, self.runs_folder / name / f"seed{seed}")

    def runs(self, tables: Sequence[Table], seeds: int, rows: Sequence[str] = ()) -> list[Run]:
        """Every run of ``tables`` once; all rows with seed 1 before any with seed 2.

        Args:
            tables, seeds: what to run.
            rows: configs of single rows; with none, all.

        Raises:
            ValueError: names a row that is not in these tables, and those that are.
        """
        configs = [row.config for table in tables for row in table.rows]
        for row in rows:
            if row not in configs:
                raise InputError(f"--row is '{row}'; the tables have {', '.join(configs)}")
        configs = [config for config in configs if not rows or config in rows]
        found = [self.run(config, seed) for seed in range(1, seeds + 1) for config in configs]
        return list({run.folder: run for run in found}.values())

    def results(self, config: str) -> list[dict[str, Any]]:
        """Results of all seeds of a row that were ever tried, in the order of the seeds."""
        folder = self.run(config, 1).folder.parent
        results = [read_json(path) for path in folder.glob(f"seed*/{RESULT}")]
        return sorted((r for r in results if r), key=lambda r: r["seed"])

    def _folder_name(self, config: str, key: str) -> str:
        if key not in self._first_config:
            known = sorted(self.runs_folder.glob(f"*-{key}"))
            self._first_config[key] = known[0].name if known else f"{config}-{key}"
        return self._first_config[key]


def write_config(run: Run) -> Path:
    """Write what ``train_net.py --config-file`` reads; returns its path."""
    tree: dict[str, Any] = {}
    values = {**run.settings, "SEED": run.seed, "OUTPUT_DIR": str(run.folder)}
    for key, value in values.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    path = run.folder / "run.yaml"
    write_text(path, f"# {run.name}\n" + yaml.safe_dump(tree))
    return path


def classify_outcome(run: Run, status: int, output: str) -> dict[str, Any]:
    """What a child process made of its run.

    Args:
        run: what it trained.
        status: its exit status.
        output: what it printed.

    Returns:
        The content of result.json, without ``seconds``.
    """
    result: dict[str, Any] = {"config": run.config, "seed": run.seed, "iterations": run.iterations}
    metrics = box_metrics(run.folder / "metrics.json") if status == 0 else {}
    if metrics:
        log = run.folder / LOG
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        found = _PURE_COMPUTE.findall(text + output)
        speed = {"seconds_per_image": float(found[-1])} if found else {}
        return {**result, "status": FINISHED, "metrics": metrics, **speed}
    if status != 0 and _NOT_FINITE.search(output):
        at = _ITERATION.findall(output)
        return {**result, "status": DIVERGED, **({"at_iteration": int(at[-1])} if at else {})}
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    reason = f"exit status {status}: {lines[-1] if lines else 'it printed nothing'}"
    if status == 0:
        reason = "it ended well, but metrics.json holds no AP"
    return {**result, "status": FAILED, "reason": reason}


def box_metrics(path: Path) -> dict[str, float]:
    """AP and the like of the last evaluation in a metrics.json, {} if it has none.

    Of a model that gives only proposals AR and the like.
    """
    for task, metric in (("bbox/", "AP"), ("box_proposals/", "AR@1000")):
        found = last_metrics(path, task + metric)
        if found:
            return {k.removeprefix(task): v for k, v in found.items() if k.startswith(task)}
    return {}


def discard_training_state(run: Run, keep_model: bool) -> None:
    """Delete what only resuming needs; of the final model keep the weights alone."""
    final = run.folder / "model_final.pth"
    checkpoints = set(run.folder.glob("model_*.pth"))
    # A checkpoint in the middle is the sign that this was not done yet; so it goes last.
    if keep_model and final in checkpoints:
        checkpoints.discard(final)
        if checkpoints:
            content = torch.load(final, map_location="cpu", weights_only=True)
            kept = {key: content[key] for key in ("model", "thing_classes") if key in content}
            with files.written_whole(str(final)) as new:
                torch.save(kept, new)
    for path in [*checkpoints, *run.folder.glob("model_*.sha256")]:
        path.unlink()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file, {} where there is none or it is broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_text(path: Path, text: str) -> None:
    """Write a file in one step: a reader, or a kill, finds all of it or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(str(path), text)


def write_json(path: Path, content: Any) -> None:
    """:func:`write_text` of an object."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
