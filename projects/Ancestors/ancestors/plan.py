"""Runs of the comparison: the config of each system, as long as the budget allows."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from focal_loss_paper.rows import SMALL_BASES, scale_schedule
from focal_loss_paper.runs import Run, read_json, write_json
from focal_loss_paper.settings import changed_keys, settings_hash

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.data.datasets.register import load_class_names
from retinanet_ext.engine.setup import merge_opts, resolve_device
from retinanet_ext.errors import ConfigError, did_you_mean
from retinanet_ext.recipe.pace import measure_pace
from retinanet_ext.structures import detection_node

from .own import FINAL
from .proposals import Proposer, write_proposals
from .systems import PROJECT, ROOT, System, by_name

__all__ = ["Comparison", "child_command", "missing"]

PLANS = "plans.json"
RESERVE = 0.97  # of the minutes: what is measured in a few steps is a little too fast
LEAST_ITERATIONS = 10
SIZES = ("MIN_SIZE_TRAIN", "MAX_SIZE_TRAIN", "MIN_SIZE_TEST", "MAX_SIZE_TEST")


def missing(system: System) -> str:
    """Why a system cannot be trained here, "" where it can."""
    if system.path is not None and not system.path.is_file():
        return f"there is no {system.config}"
    for module in system.imports:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            return f"{module} cannot be imported: {error}"
    return missing(by_name(system.proposals)) if system.proposals else ""


@dataclass
class Comparison:
    """What all systems have in common.

    Attributes:
        dataset: NAME of the registered NAME_train and NAME_val.
        folder: of the results; runs are in ``runs/``.
        minutes: of training, each system.
        iterations: in place of the minutes.
        opts: KEY VALUE ... for every system of Detectron2.
        data_root: of the built-in datasets.
        imports: modules that register datasets, for the trainings.
        say: prints a line.
    """

    dataset: str
    folder: Path
    minutes: float = 5.0
    iterations: int | None = None
    opts: Sequence[str] = ()
    data_root: str | None = None
    imports: tuple[str, ...] = ()
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self.folder = self.folder.absolute()
        for split in ("train", "val"):
            name = f"{self.dataset}_{split}"
            if name not in DatasetCatalog:
                raise ConfigError(
                    f"--dataset {self.dataset}: '{name}' is not registered."
                    f"{did_you_mean(name, DatasetCatalog.list())} Known are quickstart, "
                    "quickstart_hard, bccd and what a module of --import registers"
                )

    def run(self, system: System, seed: int, plan: bool = True) -> Run | None:
        """The run of a system.

        Args:
            system: one that is not :func:`missing`.
            seed: SEED.
            plan: measure how many iterations fit into the minutes where that is not known yet.

        Returns:
            None where it is not known, or proposals are missing, and ``plan`` is False.
        """
        if system.path is None:
            return self._own_run(system, seed)
        cfg = self.cfg(system)
        words = [system.name, f"{self.minutes * system.budget:g}"]
        if system.proposals:
            before = self.run(by_name(system.proposals), seed, plan)
            if before is None or not (before.folder / FINAL).is_file():
                return None
            words.append(before.folder.parent.name)
            self._take_proposals(cfg, before)
        iterations = self.iterations or self._planned(system, cfg, words, plan)
        if iterations is None:
            return None
        scale_schedule(cfg, iterations)
        settings = changed_keys(cfg)
        of = [] if self.iterations else words
        key = settings_hash({**_hashed(settings), "of": of, "by": words[2:]})
        return Run(system.name, settings, seed, self._folder(f"{system.name}-{key}", seed))

    def check(self, system: System) -> None:
        """Raise UserError where the config of a system cannot be used on this dataset."""
        for part in (system, *([by_name(system.proposals)] if system.proposals else ())):
            if part.path is not None:
                validate_cfg(self.cfg(part))

    def cfg(self, system: System) -> CfgNode:
        """The config of a system on this dataset, of the length that its file has."""
        assert system.path is not None
        cfg = get_cfg()
        load_config_file(cfg, system.path)
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (f"{self.dataset}_train",), (f"{self.dataset}_val",)
        node = detection_node(cfg)
        classes = load_class_names(cfg.DATASETS.TRAIN[0])
        if node is not None and classes:
            node.NUM_CLASSES = len(classes)
        self._take_sizes(cfg)
        # Pages about single runs take time, and say little here.
        cfg.TEST.REPORT, cfg.TEST.EVAL_PERIOD = False, 0
        merge_opts(cfg, list(self.opts))
        return cfg

    def _take_sizes(self, cfg: CfgNode) -> None:
        """Sizes of pictures as the dataset's RetinaNet has them, where the quickstart's were."""
        if self.dataset not in SMALL_BASES:
            return
        usual, wanted = get_cfg(), get_cfg()
        load_config_file(usual, SMALL_BASES["quickstart"])
        load_config_file(wanted, SMALL_BASES[self.dataset])
        if all(cfg.INPUT[key] == usual.INPUT[key] for key in SIZES):
            for key in SIZES:
                cfg.INPUT[key] = wanted.INPUT[key]

    def _folder(self, name: str, seed: int) -> Path:
        return self.folder / "runs" / name / f"seed{seed}"

    def _own_run(self, system: System, seed: int) -> Run:
        minutes = self.minutes * system.budget
        length = {"SOLVER.MAX_ITER": self.iterations} if self.iterations else {"MINUTES": minutes}
        names = {"DATASETS.TRAIN": [f"{self.dataset}_train"]}
        settings: dict[str, Any] = {"SYSTEM": system.name, **names, **length}
        folder = self._folder(f"{system.name}-{settings_hash(settings)}", seed)
        return Run(system.name, settings, seed, folder)

    def _planned(
        self,
        system: System,
        cfg: CfgNode,
        words: list[str],
        plan: bool,
    ) -> int | None:
        """Iterations that fit, measured once: a run that is continued keeps its length."""
        path = self.folder / PLANS
        key = "-".join([*words[:2], settings_hash({**_hashed(changed_keys(cfg)), "by": words[2:]})])
        known = read_json(path)
        if key not in known:
            if not plan:
                return None
            seconds = 60 * self.minutes * system.budget
            cfg = cfg.clone()
            validate_cfg(cfg)
            resolve_device(cfg)
            step = measure_pace(cfg, seconds, val_images=0).step
            known[key] = max(LEAST_ITERATIONS, int(RESERVE * seconds / step))
            self.say(f"{system.label}: {known[key]} iterations of {step:.2g} s fit")
            write_json(path, known)
        return int(known[key])

    def _take_proposals(self, cfg: CfgNode, before: Run) -> None:
        """Name the files of a trained proposal network, written where they are not there yet."""
        for split, key in (("train", "PROPOSAL_FILES_TRAIN"), ("val", "PROPOSAL_FILES_TEST")):
            path = before.folder / f"proposals_{split}.pkl"
            if not path.is_file():
                propose = Proposer(before.folder)
                dataset = f"{self.dataset}_{split}"
                write_proposals(propose, dataset, path, propose.cfg.INPUT.FORMAT)
                self.say(f"proposals of {dataset} are written")
            cfg.DATASETS[key] = (str(path),)


def _hashed(settings: dict[str, Any]) -> dict[str, Any]:
    """Without the files of proposals: the run that made them names these, not where they lie."""
    return {k: v for k, v in settings.items() if "PROPOSAL_FILES" not in k}


def child_command(run: Run, system: System, comparison: Comparison) -> list[str]:
    """The process that trains and evaluates ``run``, or continues with it."""
    root = ["--data-root", comparison.data_root] if comparison.data_root else []
    if system.path is None:
        words = [system.name, "--dataset", comparison.dataset, "--seed", str(run.seed)]
        words += ["--output-dir", str(run.folder), *root]
        if comparison.iterations:
            words += ["--iters", str(comparison.iterations)]
        words += ["--minutes", f"{comparison.minutes * system.budget:g}"]
        for module in comparison.imports:
            words += ["--import", module]
        return [sys.executable, str(PROJECT / "train_own.py"), *words]
    command = [sys.executable, str(ROOT / "train_net.py")]
    command += ["--config-file", str(run.folder / "run.yaml"), *root]
    for module in (*system.imports, *comparison.imports):
        command += ["--import", module]
    return [*command, "--resume"]
