"""Small typed containers and names that the components share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, int64

RETINANET_ARCHITECTURES = ("RetinaNet", "RetinaNetExt")
"""Values of MODEL.META_ARCHITECTURE that read MODEL.RETINANET: Detectron2's and this package's."""

IGNORE_LABEL = -1
"""Label of an anchor that takes part in no loss."""


@dataclass(frozen=True)
class DenseTargets:
    """What each of the R anchors of N images has to predict.

    Attributes:
        labels: (N, R) int64 in {-1 ignore, 0..K-1 class, K background}. R runs over the levels in
            order and, within a level, over (Hi, Wi, A) with A fastest.
        boxes: (N, R, 4) matched ground-truth boxes, absolute XYXY pixels. Values are undefined
            where the label is not a class.
        num_classes: K.
        extra: (E, 3) int64 rows (image, anchor, class): further classes of positive anchors, each
            row once and none of them the anchor's label, E may be 0; None where there is no such
            thing.
    """

    labels: Tensor
    boxes: Tensor
    num_classes: int
    extra: Tensor | None = None

    def __post_init__(self) -> None:
        if self.labels.dim() != 2:
            raise ValueError(f"labels must be (N, R), got {tuple(self.labels.shape)}")
        if self.boxes.shape != (*self.labels.shape, 4):
            raise ValueError(
                f"boxes must be (N, R, 4) with labels (N, R) = {tuple(self.labels.shape)}, "
                f"got {tuple(self.boxes.shape)}"
            )
        extra = self.extra
        if extra is not None and (extra.dim() != 2 or extra.shape[1] != 3 or extra.dtype != int64):
            raise ValueError(f"extra must be (E, 3) int64, got {tuple(extra.shape)} {extra.dtype}")

    def require_one_class(self, loss: str) -> None:
        """Raise ValueError if there is ``extra``: for a loss that knows one class per anchor."""
        if self.extra is not None:
            raise ValueError(
                f"the loss {loss} knows one true class per anchor, but the targets may have more; "
                "set MODEL.RETINANET.MULTI_LABEL_IOU_THRESH to 1.0, or CLS_LOSS to FocalLoss or "
                "another loss of its family"
            )

    @property
    def pos_mask(self) -> Tensor:
        """(N, R) bool: anchors labelled with an object class."""
        return (self.labels >= 0) & (self.labels < self.num_classes)

    @property
    def num_images(self) -> int:
        """N."""
        return self.labels.shape[0]


@runtime_checkable
class LazyDataset(Protocol):
    """What ``DatasetCatalog`` holds under a name, where it can say more than Detectron2 asks.

    Detectron2 only calls it for the dicts of all images. A dataset of one's own that has these
    members is checked without being loaded, as this package's are; a plain function is loaded.
    """

    def __call__(self) -> list[dict[str, Any]]:
        """Detectron2's dicts of all images."""

    def class_names(self) -> list[str]:
        """Names of the classes in the order of their ids.

        Raises:
            FileNotFoundError, ValueError: the files are missing or broken.
        """

    def require_files(self) -> None:
        """Generate what can be generated; raise FileNotFoundError for what is missing."""
