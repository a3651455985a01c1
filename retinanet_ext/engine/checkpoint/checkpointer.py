"""Detectron2's checkpointer with safe files, safe saving, and classes matched by name."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from ...errors import UserError, one_line
from ...files import remove_unfinished, write_checked, write_text
from ...weights.pretrained import is_pretrained
from ...weights.reading import (
    CLASSES_KEY,
    WeightsError,
    plain_types,
    read_safetensors,
    read_torch,
    read_zoo_file,
)
from .by_name import read_by_name, trunk_of
from .first_weights import FirstWeights
from .last_checkpoint import TAG, candidates, choose_checkpoint
from .same_model import require_same_model

logger = logging.getLogger(__name__)


class _SafeFiles(Checkpointer):
    """Reads what Detectron2's checkpointer leaves to its base: files of PyTorch."""

    def _load_file(self, filename: str) -> dict[str, Any]:
        return (read_safetensors if filename.endswith(".safetensors") else read_torch)(filename)


class SafeCheckpointer(DetectionCheckpointer, _SafeFiles):
    """Detectron2's checkpointer; a file can run no code, and a kill at any moment does no harm.

    It reads what Detectron2's reads, and .safetensors; see :mod:`.weights`. What it saves holds
    ``thing_classes``, loads with ``torch.load(..., weights_only=True)``, and has its checksum
    beside it, by which damage is found on resuming.
    """

    checkpointables: dict[str, Any]

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        thing_classes: Sequence[str] = (),
        allow_new_classes: bool = True,
        require_all: bool = False,
        **options: Any,
    ):
        """
        Args:
            model, save_dir: what is loaded and saved, and the folder of the checkpoints.
            thing_classes: the model's classes; () if unknown, which loads weights as they are.
            allow_new_classes: whether the weights may lack classes, which training then learns.
            require_all: whether the weights must have every parameter, as nothing will train it.
            options: Detectron2's ``save_to_disk``, and by name what else is loaded and saved.
        """
        super().__init__(model, save_dir, **options)
        self.thing_classes = thing_classes
        self.allow_new_classes = allow_new_classes
        self.require_all = require_all
        self._source = ""  # of the load that runs
        self._resuming = False
        self._tags = True
        self._resumed_from = ""
        self._read: dict[str, Any] | None = None  # what the next load takes instead of a file

    def save(self, name: str, tag: bool = True, **kwargs: Any) -> None:
        """Save ``name.pth`` and its checksum, see :func:`write_checked`, then ``last_checkpoint``.

        A ``save_dir`` with an address ("://") is left to Detectron2, without a checksum.

        Args:
            name: without folder and ending.
            tag: whether a later run resumes from this file.
            kwargs: further data to save; numpy's numbers become Python's.

        Raises:
            OSError: it cannot be written. What was there before still is.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        if self.thing_classes:
            kwargs.setdefault(CLASSES_KEY, list(self.thing_classes))
        states = {key: x.state_dict() for key, x in self.checkpointables.items()}
        extra = plain_types({**states, **kwargs})
        if self._is_remote():
            self._save_by_detectron2(name, tag, extra)
            return
        content = {"model": self.model.state_dict(), **extra}
        os.makedirs(self.save_dir, exist_ok=True)
        remove_unfinished(self.save_dir)
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info("saving checkpoint to %s", path)
        write_checked(path, lambda file: torch.save(content, file))
        if tag:
            self.tag_last_checkpoint(f"{name}.pth")

    def _save_by_detectron2(self, name: str, tag: bool, extra: dict[str, Any]) -> None:
        checkpointables, self.checkpointables, self._tags = self.checkpointables, {}, tag
        try:
            super().save(name, **extra)
        finally:
            self.checkpointables, self._tags = checkpointables, True

    def _is_remote(self) -> bool:
        return "://" in self.save_dir

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint to resume from, which must be written completely by now."""
        if not self._tags:
            return
        if self._is_remote():
            super().tag_last_checkpoint(last_filename_basename)
        else:
            write_text(os.path.join(self.save_dir, TAG), last_filename_basename)
        self._resumed_from = ""

    def has_checkpoint(self) -> bool:
        """Whether there is something to resume from, with or without ``last_checkpoint``."""
        if not self.save_dir or self._is_remote():
            return super().has_checkpoint()
        return bool(candidates(self.save_dir))

    def get_checkpoint_file(self) -> str:
        """Path of the checkpoint that was resumed from or, since a new one, of the newest."""
        return self._resumed_from or super().get_checkpoint_file()

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """
        Args:
            path: a file, an address, or a name of :mod:`retinanet_ext.weights.pretrained`.

        Raises:
            WeightsError: the file could run code, is broken, or nothing in it fits the model; or it
                has an address from which it does not come.
            ConfigError: of a name, the model takes other pixels than the weights.
            ImportError: it ends with .safetensors, or is in a package, that is not installed.
        """
        self._source = path
        if is_pretrained(path):
            path, self._read = read_by_name(path, self.model)
        try:
            return super().load(path, *args, **kwargs)
        except (OSError, AssertionError) as error:  # the latter of fvcore's for an unknown scheme
            if "://" not in path:
                raise
            raise WeightsError(
                f"'{path}' cannot be fetched ({one_line(error)}); see whether the address is right "
                "and reached from here, or download the file elsewhere and give its path"
            ) from error
        finally:
            self._parsed_url_during_load = None  # else a second call would fail after an error

    def _load_file(self, filename: str) -> dict[str, Any]:
        content, self._read = self._read, None
        if content is not None:
            return content
        if filename.endswith((".pkl", ".pyth")):
            return read_zoo_file(filename)
        return super()._load_file(filename)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the last intact checkpoint in ``save_dir``, or else load ``path``.

        A damaged or missing checkpoint is named in a warning, and the one before it taken, see
        :func:`.last_checkpoint.candidates`. The main process chooses for all. A training resumes
        with its checkpoint's classes, in their order; an evaluation matches them by name.

        Args:
            path: weights to start from; see :meth:`load`.
            resume: whether to look for a checkpoint.

        Raises:
            WeightsError: there are checkpoints and none of them is intact, or some process does not
                see the one that the main process chose; or it is of other classes or another
                model. Also what :meth:`load` raises.
        """
        self._resuming = resume and comm.all_gather(self.has_checkpoint())[0]
        if not self._resuming or not self.save_dir or self._is_remote():
            return super().resume_or_load(path, resume=self._resuming)
        self._resumed_from, self._read = choose_checkpoint(self.save_dir, self.checkpointables)
        try:
            return self.load(self._resumed_from)
        except (UserError, OSError):
            raise
        except Exception as error:  # of whatever is in someone else's file
            raise WeightsError(
                f"'{self._resumed_from}' holds a state of training that cannot be used "
                f"({type(error).__name__}: {one_line(error)[:200]}); resume with the config that "
                "it was trained with, or start from its weights: MODEL.WEIGHTS, without --resume"
            ) from error
        finally:
            self._read = None

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        loaded = FirstWeights(self._source, self.model, list(checkpoint["model"]))
        trains_on = self._resuming and bool(self.checkpointables)
        if not trains_on:
            loaded.match_classes(checkpoint, self.thing_classes, self.allow_new_classes)
        if self._resuming:
            classes = self.thing_classes if trains_on else ()
            require_same_model(self._source, checkpoint, self.model, classes)
        incompatible = super()._load_model(checkpoint)
        loaded.compare(incompatible)
        loaded.require_fit(self.require_all)
        if is_pretrained(self._source):
            loaded.require_trunk(trunk_of(self.model))
        if not self._resuming:
            loaded.log()
            if incompatible.missing_keys:
                # The console has it in one line; fvcore would warn of each tensor.
                logger.info("not in %s: %s", self._source, ", ".join(incompatible.missing_keys))
                incompatible.missing_keys.clear()
        return incompatible
