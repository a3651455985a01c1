"""What of a file's weights a model takes: required, matched by class names, said in one line."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from ...console import SHOWN
from ...weights.reading import CLASSES_KEY, WeightsError
from .fine_tune import ClassTransfer, match_classes

__all__ = ["FirstWeights"]

logger = logging.getLogger(__name__)


class FirstWeights:
    """One file's weights on their way into a model.

    Attributes:
        source: the file's name, as errors give it.
        transfer: what became of the rows of the classes; None where they were used as they are.
        fresh: names of the parameters that the file has no row of, after :meth:`compare`.
    """

    def __init__(self, source: str, model: nn.Module, names: Sequence[str]):
        """
        Args:
            source: what the weights come from.
            model: what they are loaded into.
            names: of the file's tensors.
        """
        self.source = source
        self.transfer: ClassTransfer | None = None
        self.fresh: list[str] = []
        self._model: Any = model
        self._names = list(names)

    def match_classes(
        self, checkpoint: dict[str, Any], classes: Sequence[str], allow_new: bool
    ) -> None:
        """Put the rows of the model's classes in place of the checkpoint's, see :mod:`.fine_tune`.

        Args:
            checkpoint: what the file holds; its weights are changed.
            classes: the model's; () if unknown, which changes nothing.
            allow_new: whether the weights may lack classes, which training then learns.

        Raises:
            WeightsError: there are new classes, and nothing will train them.
        """
        weights, old_names = checkpoint["model"], checkpoint.get(CLASSES_KEY)
        found = match_classes(self._model, weights, old_names, classes) if classes else None
        if found is None:
            return
        transfer, merged = found
        if transfer.new and not allow_new:
            if all(x.shape == getattr(weights.get(k), "shape", None) for k, x in merged.items()):
                logger.warning(
                    "%s has other class names: %s; rows used as they are", self.source, transfer
                )
                return
            raise WeightsError(
                f"'{self.source}' does not detect all classes of the dataset; {transfer}. Train "
                "it on them first, or evaluate on a dataset of its own classes"
            )
        if transfer.new and not self._model.head.cls_score.weight.requires_grad:
            raise WeightsError(
                f"MODEL.RETINANET.FREEZE holds cls_score, but '{self.source}' lacks classes of "
                f"the dataset, which would stay random; {transfer}. Take cls_score out of FREEZE"
            )
        weights.update(merged)
        self.transfer = transfer

    def compare(self, incompatible: Any) -> None:
        """Note which parameters the file has no row of, from what fvcore's loading returned."""
        wrong = {name for name, *_ in incompatible.incorrect_shapes}
        wrong.update(incompatible.missing_keys)
        if self.transfer is not None and not self.transfer.copied:
            wrong.update(self.transfer.layers)
        self.fresh = [name for name in self._parameters() if name in wrong]

    def require_fit(self, require_all: bool) -> None:
        """
        Args:
            require_all: whether the file must have every parameter.

        Raises:
            WeightsError: no parameter was loaded, or not each one that must be.
        """
        parameters = self._parameters()
        if self.fresh and require_all:
            raise WeightsError(
                f"'{self.source}' does not fit the model: {len(self.fresh)} of {len(parameters)} "
                f"parameter tensors are missing or of another shape ({', '.join(self.fresh[:3])}); "
                "give the config and the number of classes that it was trained with"
            )
        if len(self.fresh) < len(parameters) or not parameters:
            return
        raise WeightsError(
            f"'{self.source}' has no weights that fit the model: it holds "
            f"{', '.join(self._names[:3]) or 'nothing'}, ..., and the model "
            f"{', '.join(parameters[:3])}, ...; give weights of this network, or "
            "'?matching_heuristics=True' after the file's name to match names by their last parts"
        )

    def require_trunk(self, prefix: str) -> None:
        """
        Args:
            prefix: what names of the network under the pyramid start with.

        Raises:
            WeightsError: a part of that network was not loaded.
        """
        missing = [name for name in self.fresh if name.startswith(prefix)]
        if missing:
            raise WeightsError(
                f"'{self.source}' does not fit the backbone: {len(missing)} of its parameter "
                f"tensors are missing or of another shape ({', '.join(missing[:3])}); set the "
                "backbone and its depth and width to those of the weights"
            )

    def log(self) -> None:
        """Say in one line what was loaded and what was not."""
        total, fresh = len(self._parameters()), self.fresh
        parts = [f"loaded {total - len(fresh)} of {total} parameter tensors from {self.source}"]
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in fresh))
        if layers:
            more = f" and {len(layers) - 4} more layers" if len(layers) > 4 else ""
            parts.append(f"new: {', '.join(layers[:4])}{more}")
        if self.transfer is not None:
            parts.append(str(self.transfer))
        logger.info("%s", "; ".join(parts), extra=SHOWN)

    def _parameters(self) -> list[str]:
        return [name for name, _ in self._model.named_parameters()]
