"""What the parts of a detector are to each other, as types.

An entry of a registry need not derive from any of these, only have the methods. In prose, with the
optional attributes of each entry: :mod:`retinanet_ext.registry`.

Letters: N images, L levels, Hi x Wi locations of level i, A anchors per location, K classes, R
anchors over all levels, C channels, P positive anchors, B deltas per anchor: 4, or 4K with a box
regressor per class.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, nn

from .structures import DenseTargets, HeadOutputs

if TYPE_CHECKING:  # the losses work where Detectron2 is absent, and so do these types
    from detectron2.structures import Boxes, Instances


class Head(Protocol):
    """A dense head: logits and deltas of every anchor, and whatever else it names."""

    def __call__(
        self, features: list[Tensor], /
    ) -> HeadOutputs | tuple[list[Tensor], list[Tensor]]:
        """Outputs on L features (N, C, Hi, Wi); the pair is (logits, deltas), as Detectron2's."""
        ...


class PartialHead(Protocol):
    """A head that can leave out of a training step what the losses can do without.

    A class says so by having ``partial_outputs`` in its own body. It is not inherited: a subclass,
    which may compute something else, is called as a whole until it says that the method stands for
    it too (``partial_outputs = RetinaNetHead.partial_outputs``).
    """

    cls_score: nn.Conv2d
    """Makes the logits of ``cls_features``: stride 1, to A*K channels in maps of the same size."""

    def partial_outputs(
        self, features: list[Tensor], targets: DenseTargets, wanted: Collection[str]
    ) -> HeadOutputs:
        """The outputs of ``forward``, some of them in parts.

        Args:
            features: L tensors (N, C, Hi, Wi).
            targets: of the N images.
            wanted: "cls_features" and "positive_deltas" of :class:`HeadOutputs`, where the losses
                can do with these; the head may give the whole all the same.
        """
        ...


class NamedLossHead(Protocol):
    """A head that teaches its own named outputs."""

    def named_losses(
        self, outputs: HeadOutputs, targets: DenseTargets, anchors: list[Boxes]
    ) -> dict[str, Tensor]:
        """Losses by name, each a scalar sum; the detector divides them by the loss normalizer.

        Args:
            outputs: of this head.
            targets: of the N images.
            anchors: L Boxes (Hi*Wi*A, 4).
        """
        ...


class Predictions(Protocol):
    """What the head says of the anchors of N images, without gradient."""

    def scores(self, image: int, classes: Tensor) -> Tensor:
        """Probabilities (R, M) of classes (M,) int64 in [0, K) at the anchors of an image."""
        ...

    def boxes(self, image: int) -> Tensor:
        """Predicted boxes (R, 4) of an image, absolute XYXY pixels."""
        ...


class Assigner(Protocol):
    """Says what each anchor has to predict.

    Optional attribute: ``needs_predictions``, True if it also wants :class:`Predictions` as third
    argument. The head is then called as a whole before it.
    """

    def __call__(
        self, anchors: list[Boxes], gt_instances: list[Instances], /, *seen: Any
    ) -> DenseTargets:
        """Targets of L Boxes (Hi*Wi*A, 4) in N Instances with ``gt_boxes`` and ``gt_classes``.

        Args:
            anchors, gt_instances: as above.
            seen: what the head predicts, with ``needs_predictions``; else nothing.
        """
        ...


class ClassificationLoss(Protocol):
    """The loss of the logits, summed over all anchors that are not ignored."""

    def __call__(self, logits: list[Tensor], targets: DenseTargets, /, **wanted: Any) -> Tensor:
        """Scalar sum of L logits (N, A*K, Hi, Wi).

        Args:
            logits: of the head.
            targets: of the N images.
            wanted: ``anchors`` and ``quality`` where the loss has ``needs_anchors`` and
                ``needs_quality``.
        """
        ...


class FusedClassificationLoss(ClassificationLoss, Protocol):
    """A loss that makes the logits in pieces; opted in to as :class:`PartialHead` is."""

    def from_features(
        self, features: list[Tensor], conv: nn.Conv2d, targets: DenseTargets
    ) -> Tensor:
        """The same sum for ``logits = [conv(x) for x in features]``, features (N, C, Hi, Wi)."""
        ...


class BoxCoder(Protocol):
    """What a head's numbers for a box mean; Detectron2's ``Box2BoxTransform`` is one.

    Optional attributes: ``num_outputs``, how many numbers a box takes (4 where absent), and
    ``needs_strides``: True if both methods also want ``strides`` (P,), in pixels.
    """

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor, /, **wanted: Any) -> Tensor:
        """Numbers (P, B) for boxes (P, 4) seen from anchors (P, 4), absolute XYXY pixels."""
        ...

    def apply_deltas(self, deltas: Tensor, boxes: Tensor, /, **wanted: Any) -> Tensor:
        """Boxes (P, 4) of numbers (P, B) and anchors (P, 4); P may be 0."""
        ...


class BoxLoss(Protocol):
    """The loss of the boxes, summed over the positive anchors."""

    def __call__(
        self, deltas: Tensor, anchors: Tensor, gt_boxes: Tensor, /, **wanted: Any
    ) -> Tensor:
        """Scalar sum; anchors and boxes (P, 4) in absolute XYXY pixels, P may be 0.

        Args:
            deltas: (P, B) for a coder of B numbers per box.
            anchors, gt_boxes: of the positive anchors.
            wanted: ``weights`` (P,) where the loss has ``uses_weights`` and the targets have them,
                ``strides`` (P,) where it has ``needs_strides``.
        """
        ...


@runtime_checkable
class LazyDataset(Protocol):
    """What ``DatasetCatalog`` holds under a name, where it can say more than Detectron2 asks.

    Detectron2 only calls it for the dicts of all images. A dataset of one's own that has these
    members is checked without being loaded, as this package's are; a plain function is loaded.
    """

    def __call__(self) -> list[dict[str, Any]]:
        """Detectron2's dicts of all images."""
        ...

    def class_names(self) -> list[str]:
        """Names of the classes in the order of their ids.

        Raises:
            FileNotFoundError, ValueError: the files are missing or broken.
        """
        ...

    def require_files(self) -> None:
        """Generate what can be generated; raise FileNotFoundError for what is missing."""
        ...
