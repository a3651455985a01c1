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

from ...console import SHOWN
from ...errors import UserError, one_line
from ...files import remove_unfinished, write_checked, write_text
from ...weights.pretrained import (
    check_pixels,
    find_pretrained,
    is_pretrained,
    local_file,
    read_pretrained,
)
from ...weights.reading import (
    CLASSES_KEY,
    WeightsError,
    plain_types,
    read_safetensors,
    read_torch,
    read_zoo_file,
)
from .fine_tune import ClassTransfer, match_classes
from .last_checkpoint import TAG, candidates, choose_checkpoint
from .same_model import require_same_model

_PIXEL_BUFFERS = ("pixel_mean", "pixel_std")

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
            path = self._read_pretrained(path)
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

    def _read_pretrained(self, address: str) -> str:
        """Check the pixels, and read ImageNet weights for the network under the pyramid.

        Returns:
            Path of the file.
        """
        found = find_pretrained(address)
        model: Any = self.model
        mean, std = (getattr(model, name).flatten().tolist() for name in _PIXEL_BUFFERS)
        check_pixels(found, getattr(model, "input_format", "BGR"), mean, std)
        path = local_file(found)
        if not found.is_detector:
            self._read = read_pretrained(found, path, self._trunk())
        return path

    def _trunk(self) -> str:
        """What names of the network under the pyramid start with."""
        has_pyramid = hasattr(self.model.backbone, "bottom_up")
        return "backbone.bottom_up." if has_pyramid else "backbone."

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
        names = list(checkpoint["model"])
        trains_on = self._resuming and bool(self.checkpointables)
        transfer = None if trains_on else self._match_classes(checkpoint)
        if self._resuming:
            classes = self.thing_classes if trains_on else ()
            require_same_model(self._source, checkpoint, self.model, classes)
        incompatible = super()._load_model(checkpoint)
        fresh = self._fresh_parameters(incompatible, transfer)
        self._require_fit(names, fresh)
        if is_pretrained(self._source):
            self._require_trunk(fresh)
        if not self._resuming:
            self._log_start(fresh, transfer)
            if incompatible.missing_keys:
                # The console has it in one line; fvcore would warn of each tensor.
                logger.info("not in %s: %s", self._source, ", ".join(incompatible.missing_keys))
                incompatible.missing_keys.clear()
        return incompatible

    def _match_classes(self, checkpoint: dict[str, Any]) -> ClassTransfer | None:
        """Put the rows of the model's classes in place of the checkpoint's, see :mod:`.fine_tune`.

        Raises:
            WeightsError: there are new classes, and nothing will train them.
        """
        weights, old_names = checkpoint["model"], checkpoint.get(CLASSES_KEY)
        found = None
        if self.thing_classes:
            found = match_classes(self.model, weights, old_names, self.thing_classes)
        if found is None:
            return None
        transfer, merged = found
        if transfer.new and not self.allow_new_classes:
            if all(x.shape == getattr(weights.get(k), "shape", None) for k, x in merged.items()):
                logger.warning(
                    "%s has other class names: %s; rows used as they are", self._source, transfer
                )
                return None
            raise WeightsError(
                f"'{self._source}' does not detect all classes of the dataset; {transfer}. Train "
                "it on them first, or evaluate on a dataset of its own classes"
            )
        if transfer.new and not self.model.head.cls_score.weight.requires_grad:
            raise WeightsError(
                f"MODEL.RETINANET.FREEZE holds cls_score, but '{self._source}' lacks classes of "
                f"the dataset, which would stay random; {transfer}. Take cls_score out of FREEZE"
            )
        weights.update(merged)
        return transfer

    def _fresh_parameters(self, incompatible: Any, transfer: ClassTransfer | None) -> list[str]:
        """Names of the parameters that the checkpoint has no row of."""
        wrong = {name for name, *_ in incompatible.incorrect_shapes}
        wrong.update(incompatible.missing_keys)
        if transfer is not None and not transfer.copied:
            wrong.update(transfer.layers)
        return [name for name, _ in self.model.named_parameters() if name in wrong]

    def _require_fit(self, names: list[str], fresh: list[str]) -> None:
        """Raise WeightsError if no parameter was loaded, or not each one that must be."""
        parameters = [name for name, _ in self.model.named_parameters()]
        if fresh and self.require_all:
            raise WeightsError(
                f"'{self._source}' does not fit the model: {len(fresh)} of {len(parameters)} "
                f"parameter tensors are missing or of another shape ({', '.join(fresh[:3])}); give "
                "the config and the number of classes that it was trained with"
            )
        if len(fresh) < len(parameters) or not parameters:
            return
        raise WeightsError(
            f"'{self._source}' has no weights that fit the model: it holds "
            f"{', '.join(names[:3]) or 'nothing'}, ..., and the model {', '.join(parameters[:3])}, "
            "...; give weights of this network, or '?matching_heuristics=True' after the file's "
            "name to match names by their last parts"
        )

    def _require_trunk(self, fresh: list[str]) -> None:
        """Raise WeightsError if a part of the network under the pyramid was not loaded."""
        missing = [name for name in fresh if name.startswith(self._trunk())]
        if missing:
            raise WeightsError(
                f"'{self._source}' does not fit the backbone: {len(missing)} of its parameter "
                f"tensors are missing or of another shape ({', '.join(missing[:3])}); set the "
                "backbone and its depth and width to those of the weights"
            )

    def _log_start(self, fresh: list[str], transfer: ClassTransfer | None) -> None:
        """Say in one line what was loaded and what was not."""
        total = sum(1 for _ in self.model.parameters())
        parts = [f"loaded {total - len(fresh)} of {total} parameter tensors from {self._source}"]
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in fresh))
        if layers:
            more = f" and {len(layers) - 4} more layers" if len(layers) > 4 else ""
            parts.append(f"new: {', '.join(layers[:4])}{more}")
        if transfer is not None:
            parts.append(str(transfer))
        logger.info("%s", "; ".join(parts), extra=SHOWN)
