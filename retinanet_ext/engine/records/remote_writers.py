"""Weights & Biases and MLflow, chosen by ``WRITERS``; a resumed run continues its remote run.

The project is the folder that ``OUTPUT_DIR`` is in and the run is ``OUTPUT_DIR``'s own name, unless
the service's environment variables say otherwise. The ids of the remote runs are kept in
``OUTPUT_DIR/remote_runs.json``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import re
import uuid
from abc import abstractmethod
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.events import get_event_storage

from ...errors import MissingPackageError, TrainingFailed
from ...files import write_text
from .writers import ResumableWriter, unwritten

__all__ = ["MLflow", "WandB", "build_remote_writers", "check_remote_writers"]

logger = logging.getLogger(__name__)


class RemoteWriter(ResumableWriter):
    """Sends the scalars to a service.

    Its errors are OSErrors, which :class:`.hook.WriterHook` reports before training continues.
    """

    package: str  # what is imported, and the entry of cfg.WRITERS

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: the run's config, sent once.
        """
        self.path = self.package  # named in log lines
        self._cfg = cfg
        self._last_write = -1
        self._on = False

    def start(self, written: int | None) -> None:
        """Open the remote run; of an earlier run only if this one resumes it.

        One that cannot be continued is an error in the log, and gets nothing more.

        Raises:
            TrainingFailed: a new run cannot be opened.
        """
        ids = {} if written is None else _read_ids(self._cfg.OUTPUT_DIR)
        try:
            run_id, last = self._open(ids.get(self.package))
        except Exception as error:
            if written is None:
                raise TrainingFailed(
                    f"{self.package} cannot open a run: {_one_line(error)}; log in, or take "
                    f"'{self.package}' out of WRITERS"
                ) from error
            logger.error("training continues without %s: %s", self.package, _one_line(error))
            return
        self._on = True
        # What the service holds of later iterations cannot be removed; it is not sent twice.
        self._last_write = last
        try:
            _write_id(self._cfg.OUTPUT_DIR, self.package, run_id)
        except OSError as error:
            logger.warning(
                "a resumed run will open another run of %s: cannot write %s: %s",
                self.package,
                _ids_file(self._cfg.OUTPUT_DIR),
                error,
            )

    def write(self) -> None:
        """Send the new scalars."""
        if not self._on:
            return
        try:
            for iteration, scalars in unwritten(get_event_storage(), self._last_write):
                self._send(iteration, scalars)
                self._last_write = iteration
        except Exception as error:
            raise ConnectionError(_one_line(error)) from error

    def close(self) -> None:
        """Close the remote run."""
        if not self._on:
            return
        self._on = False
        try:
            self._close()
        except Exception as error:
            raise ConnectionError(_one_line(error)) from error

    @abstractmethod
    def _open(self, run_id: str | None) -> tuple[str, int]:
        """Open a run, the given one if any; return its id and the last iteration it holds."""

    @abstractmethod
    def _send(self, iteration: int, scalars: dict[str, float]) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


class WandB(RemoteWriter):
    """Weights & Biases; ``WANDB_PROJECT``, ``WANDB_NAME`` and ``WANDB_MODE`` are followed."""

    package = "wandb"

    def _open(self, run_id: str | None) -> tuple[str, int]:
        wandb: Any = importlib.import_module("wandb")
        project, name = _names(self._cfg.OUTPUT_DIR)
        run_id = run_id or uuid.uuid4().hex[:8]
        self._run = wandb.init(
            id=run_id,
            resume="allow",
            project=None if os.environ.get("WANDB_PROJECT") else project,
            name=None if os.environ.get("WANDB_NAME") else name,
            dir=self._cfg.OUTPUT_DIR,
            config=json.loads(json.dumps(self._cfg, default=str)),
        )
        return run_id, self._run.step - 1  # `step` is the first one that is free

    def _send(self, iteration: int, scalars: dict[str, float]) -> None:
        self._run.log(scalars, step=iteration)

    def _close(self) -> None:
        self._run.finish()


class MLflow(RemoteWriter):
    """MLflow; ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` and so on are followed."""

    package = "mlflow"

    def _open(self, run_id: str | None) -> tuple[str, int]:
        self._mlflow: Any = importlib.import_module("mlflow")
        project, name = _names(self._cfg.OUTPUT_DIR)
        if run_id is not None:
            run = self._mlflow.start_run(run_id=run_id)
            return run_id, int(run.data.metrics.get("iteration", -1))
        if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & set(os.environ):
            self._mlflow.set_experiment(project)
        run = self._mlflow.start_run(run_name=os.environ.get("MLFLOW_RUN_NAME") or name)
        self._mlflow.log_text(self._cfg.dump(), "config.yaml")
        return run.info.run_id, -1

    def _send(self, iteration: int, scalars: dict[str, float]) -> None:
        # Other characters than these are refused. A resumed run continues at the iteration.
        metrics = {re.sub(r"[^\w\-. /]", "_", name): value for name, value in scalars.items()}
        self._mlflow.log_metrics({**metrics, "iteration": float(iteration)}, step=iteration)

    def _close(self) -> None:
        self._mlflow.end_run()


_KINDS: dict[str, type[RemoteWriter]] = {kind.package: kind for kind in (WandB, MLflow)}


def check_remote_writers(cfg: CfgNode) -> None:
    """Raise ImportError if a package that ``WRITERS`` needs is not installed."""
    for name in cfg.WRITERS:
        if importlib.util.find_spec(name) is None:
            raise MissingPackageError(
                f"WRITERS has '{name}', but the package {name} is not installed; run `pip install "
                f"{name}`, or take it out of WRITERS"
            )


def build_remote_writers(cfg: CfgNode) -> list[RemoteWriter]:
    """The writers that ``WRITERS`` names; nothing is sent before they start.

    Raises:
        ImportError: see :func:`check_remote_writers`.
    """
    check_remote_writers(cfg)
    return [_KINDS[name](cfg) for name in cfg.WRITERS]


def _names(output_dir: str) -> tuple[str, str]:
    """Project and run of a folder: ``work/output/bccd`` is ``output`` and ``bccd``."""
    parent, name = os.path.split(os.path.abspath(output_dir))
    return os.path.basename(parent) or "retinanet_ext", name


def _ids_file(output_dir: str) -> str:
    return os.path.join(output_dir, "remote_runs.json")


def _read_ids(output_dir: str) -> dict[str, str]:
    try:
        with open(_ids_file(output_dir), encoding="utf-8") as file:
            return dict(json.load(file))
    except (OSError, ValueError):
        return {}


def _write_id(output_dir: str, package: str, run_id: str) -> None:
    ids = {**_read_ids(output_dir), package: run_id}
    write_text(_ids_file(output_dir), json.dumps(ids, indent=2) + "\n")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
