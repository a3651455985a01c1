"""When a run saves its state, which files it keeps, and what happens where it cannot save."""

from __future__ import annotations

import logging
import os
import shutil
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from ...console import SHOWN
from ...errors import TrainingFailed
from ...files import remove_checked
from ...weights.checks import not_finite
from .checkpointer import SafeCheckpointer
from .last_checkpoint import numbered_checkpoints, numbered_name, read_tag

__all__ = ["CheckpointError", "CheckpointHook", "NonFiniteWeights"]

logger = logging.getLogger(__name__)

FINAL, BEST = "model_final", "model_best"


class CheckpointError(TrainingFailed, OSError):
    """What training ends with could not be saved; its text is one sentence for a user."""


class NonFiniteWeights(TrainingFailed, FloatingPointError):
    """The weights that a checkpoint would hold are not finite; nothing was saved."""


class CheckpointHook(HookBase):
    """Save the state of training every ``period`` iterations, and after the last one.

    As in Detectron2, the files are ``model_0000099.pth`` with the iteration that they were saved
    after, and ``model_final.pth``. A failed save is logged as one error, and training continues:
    see also :meth:`require_saved`. Weights that are not finite are never saved, so the newest file,
    which ``keep_last`` spares, is always one to resume from. To be registered in all processes; the
    main one writes.
    """

    def __init__(self, checkpointer: SafeCheckpointer, period: int, keep_last: int = 0):
        """
        Args:
            checkpointer: what saves.
            period: iterations, at least 1.
            keep_last: number of numbered files to keep, the newest ones; 0 keeps all. Those of
                before a resume count too. What ``last_checkpoint`` names is kept in any case.
        """
        self._checkpointer = checkpointer
        self._period = period
        self._keep_last = keep_last
        self._saved: dict[int, str] = {}  # the last iteration that was saved, and its file
        self._final_failed = False
        self._final_iteration = -1  # that of the last attempt to save model_final

    def after_step(self) -> None:
        """
        Raises:
            NonFiniteWeights: there is nothing in the weights that is worth saving.
        """
        done = self.trainer.iter + 1
        if done % self._period == 0:
            self._save_numbered()
        if done >= self.trainer.max_iter:
            self._save_final(self.trainer.iter)

    def after_train(self) -> None:
        """Save the final state of a training that ended earlier than it was planned."""
        start, end = self.trainer.start_iter, self.trainer.max_iter
        # After an error or a stop, trainer.iter is less than max_iter.
        if self.trainer.iter < end or self._final_iteration >= 0:
            return
        if end > start or not os.path.isfile(self._path(FINAL)):
            self._save_final(max(start, end) - 1)

    def save_now(self, reason: str) -> str:
        """Save the state after this iteration, unless that is done; to be called after a step.

        Args:
            reason: for the log, such as "SIGTERM".

        Returns:
            Path of the file; "" if it could not be written, which is logged then.
        """
        iteration = self.trainer.iter
        if iteration not in self._saved:
            bad = self._not_finite()
            if bad:
                logger.error("%s: nothing is saved, since %s", reason, bad)
                return ""
            logger.info("%s: saving after iteration %d", reason, iteration, extra=SHOWN)
            self._save_numbered()
        return self._saved.get(iteration, "")

    @property
    def is_saved(self) -> bool:
        """Whether the state after this iteration is on the disk."""
        return self.trainer.iter in self._saved

    def save_best(self, metric: str, value: float, iteration: int) -> bool:
        """Save ``model_best.pth``, which no run resumes from by itself.

        Args:
            metric: full name of what it is best by, such as ``bbox/AP``; saved as ``best_metric``.
            value: its value; saved as ``best_value``.
            iteration: the last one that was finished; saved as ``iteration``.

        Returns:
            Whether it was saved; True in processes other than the main one.
        """
        return self._save(BEST, iteration, tag=False, best_metric=metric, best_value=value)

    def require_saved(self) -> None:
        """Raise if the final state is not on the disk; to be called after the last evaluation.

        Raises:
            CheckpointError: saving it failed, and failed again now.
        """
        if self._final_failed:
            self._save_final(self._final_iteration)
        if self._final_failed:
            raise CheckpointError(
                f"training is done but '{self._path(FINAL)}' could not be saved, for the reason "
                "logged above; make room or set another OUTPUT_DIR, and run again with --resume to "
                "continue from the last checkpoint"
            )

    def _save_numbered(self) -> None:
        iteration = self.trainer.iter
        name = numbered_name(iteration)
        if self._save(name, iteration):
            self._saved = {iteration: self._path(name)}
            self._remove_older(iteration)

    def _save_final(self, iteration: int) -> None:
        self._final_iteration = iteration
        self._final_failed = not self._save(FINAL, iteration)
        if not self._final_failed:
            self._saved = {iteration: self._path(FINAL)}

    def _save(self, name: str, iteration: int, **extra: Any) -> bool:
        """Save the state as one after ``iteration``; what goes wrong with the disk is logged."""
        bad = self._not_finite()
        if bad:
            raise NonFiniteWeights(
                f"{self._path(name)} is not saved, since after iteration {iteration} {bad}; lower "
                "SOLVER.BASE_LR, warm up longer or clip gradients (SOLVER.CLIP_GRADIENTS.ENABLED "
                f"True). {self._last_saved()}"
            )
        now, self.trainer.iter = self.trainer.iter, iteration
        try:
            self._checkpointer.save(name, iteration=iteration, **extra)
        except OSError as error:
            logger.error(
                "%s was not saved: %s (%s free in %s). The checkpoints that are there stay as they "
                "are, and saving is tried again %s; until then make room (SOLVER.CHECKPOINTS_KEPT "
                "keeps fewer files) or make the folder writable",
                self._path(name),
                error.strerror or error,
                _free_space(self._checkpointer.save_dir),
                self._checkpointer.save_dir,
                "after the last evaluation" if name == FINAL else "with the next checkpoint",
            )
            return False
        finally:
            self.trainer.iter = now
        return True

    def _not_finite(self) -> str:
        """Which weights, statistics or averages are not finite, in words; "" for none.

        All processes have the same weights, so all answer alike; the main one, which writes, looks
        at all that it would write.
        """
        model = self._checkpointer.model
        main = comm.is_main_process()
        names = not_finite(model.state_dict() if main else dict(model.named_parameters()))
        ema = self._checkpointer.checkpointables.get("ema")
        names += [f"the average of {name}" for name in not_finite(getattr(ema, "averages", {}))]
        if not names:
            return ""
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return f"{names[0]}{more} {'are' if more else 'is'} not finite"

    def _last_saved(self) -> str:
        tagged = read_tag(self._checkpointer.save_dir)
        if not tagged:
            return "There is no checkpoint to go back to"
        return f"--resume continues {os.path.join(self._checkpointer.save_dir, tagged)}"

    def _remove_older(self, newest: int) -> None:
        """Remove the numbered files before the last ``keep_last``, of which ``newest`` is one."""
        folder = self._checkpointer.save_dir
        if self._keep_last <= 0 or "://" in folder or not comm.is_main_process():
            return
        tagged = read_tag(folder)
        # Files with later numbers are of a run that went further before it was taken back.
        older = [x for i, x in numbered_checkpoints(folder).items() if i <= newest]
        for path in older[: -self._keep_last]:
            if os.path.basename(path) == tagged:
                continue
            try:
                remove_checked(path)
            except OSError as error:
                logger.warning("%s cannot be removed: %s", path, error.strerror or error)

    def _path(self, name: str) -> str:
        return os.path.join(self._checkpointer.save_dir, f"{name}.pth")


def _free_space(folder: str) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB"
    except OSError:
        return "unknown space"
