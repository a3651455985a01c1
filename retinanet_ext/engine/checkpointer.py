"""Detectron2's checkpointer with safe files, safe saving, and classes matched by name."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from fvcore.common.checkpoint import Checkpointer

from .fine_tune import ClassTransfer, match_classes
from .weights import (
    CLASSES_KEY,
    WeightsError,
    plain_types,
    read_safetensors,
    read_torch,
    read_zoo_file,
)

logger = logging.getLogger(__name__)


class _SafeFiles(Checkpointer):
    """Reads what Detectron2's checkpointer leaves to its base: files of PyTorch."""

    def _load_file(self, filename: str) -> dict[str, Any]:
        return (read_safetensors if filename.endswith(".safetensors") else read_torch)(filename)


class SafeCheckpointer(DetectionCheckpointer, _SafeFiles):
    """Detectron2's checkpointer; a file can run no code, and a kill at any moment does no harm.

    It reads what Detectron2's reads, and .safetensors; see :mod:`.weights`. What it saves holds
    ``thing_classes``, and loads with ``torch.load(..., weights_only=True)``.
    """

    thing_classes: Sequence[str] = ()
    """Names of the model's classes; () if unknown: weights are then loaded as they are."""

    allow_new_classes = True
    """Whether classes that the weights do not have are fine, as they are where they are learned."""

    checkpointables: dict[str, Any]
    _source = ""
    _resuming = False

    def save(self, name: str, **kwargs: Any) -> None:
        """See Detectron2; numpy's numbers become Python's."""
        if self.thing_classes:
            kwargs.setdefault(CLASSES_KEY, list(self.thing_classes))
        checkpointables = self.checkpointables
        self.checkpointables = {key: _PlainState(x) for key, x in checkpointables.items()}
        try:
            super().save(name, **plain_types(kwargs))
        finally:
            self.checkpointables = checkpointables

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint to resume from, which must be written completely by now."""
        if "://" in self.save_dir:
            super().tag_last_checkpoint(last_filename_basename)
            return
        tag = os.path.join(self.save_dir, "last_checkpoint")
        with open(f"{tag}.tmp", "w") as file:
            file.write(last_filename_basename)
        # In one step: opening the tag for writing would empty it first.
        os.replace(f"{tag}.tmp", tag)

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """See Detectron2.

        Raises:
            WeightsError: the file could run code, is broken, or nothing in it fits the model.
            ImportError: it ends with .safetensors and that package is not installed.
        """
        self._source = path
        try:
            return super().load(path, *args, **kwargs)
        finally:
            self._parsed_url_during_load = None  # else a second call would fail after an error

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith((".pkl", ".pyth")):
            return read_zoo_file(filename)
        return super()._load_file(filename)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """See Detectron2; what is resumed has the same classes, so these are not compared."""
        self._resuming = resume and self.has_checkpoint()
        return super().resume_or_load(path, resume=resume)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        names = list(checkpoint["model"])
        transfer = None if self._resuming else self._match_classes(checkpoint)
        incompatible = super()._load_model(checkpoint)
        fresh = self._fresh_parameters(incompatible, transfer)
        self._require_fit(names, fresh)
        if not self._resuming:
            self._log_start(fresh, transfer)
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
        """Raise WeightsError if no parameter was loaded: training would start from nothing."""
        parameters = [name for name, _ in self.model.named_parameters()]
        if len(fresh) < len(parameters) or not parameters:
            return
        raise WeightsError(
            f"'{self._source}' has no weights that fit the model: it holds "
            f"{', '.join(names[:3]) or 'nothing'}, ..., and the model {', '.join(parameters[:3])}, "
            "...; give weights of this network, or '?matching_heuristics=True' after the file's "
            "name to match names by their last parts"
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
        logger.info("%s", "; ".join(parts))


class _PlainState:
    """Something checkpointable whose state has no numpy numbers."""

    def __init__(self, source: Any):
        self._source = source

    def state_dict(self) -> Any:
        return plain_types(self._source.state_dict())
