"""The registries that this package adds beside Detectron2's own.

What an entry is called with and returns, as types: :mod:`retinanet_ext.protocols`.

Every entry is called with ``cfg`` first (write a ``from_config`` and decorate ``__init__`` with
:func:`detectron2.config.configurable`), so that a class can be chosen by its name in a yaml file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fvcore.common.registry import Registry

from .compat import replace_entry
from .errors import did_you_mean

T = TypeVar("T", bound=Callable[..., Any])


def register_once(registry: Registry) -> Callable[[T], T]:
    """Decorator that registers a class under its name, replacing an earlier version of itself.

    Detectron2's own ``register`` fails when a notebook reloads the module that holds the class.

    Raises:
        KeyError: if another class already has that name.
    """

    def decorate(cls: T) -> T:
        name = cls.__name__
        old = dict(registry).get(name)
        if old is None:
            registry.register(cls)
        elif (old.__module__, old.__qualname__) == (cls.__module__, cls.__qualname__):
            replace_entry(registry, name, cls)
        else:
            raise KeyError(
                f"'{name}' is already registered by {old.__module__}; "
                f"give the class in {cls.__module__} another name"
            )
        return cls

    return decorate


class ComponentRegistry(Registry):
    """A registry whose lookup error lists the choices and whose entries survive a module reload."""

    def __init__(self, name: str, config_key: str):
        """
        Args:
            name: what the entries are, for messages.
            config_key: the config key that chooses an entry.
        """
        super().__init__(name)
        self.config_key = config_key

    def register(self, obj: Any = None) -> Any:
        """Register a class; use as ``@REGISTRY.register()`` or ``REGISTRY.register(cls)``."""
        if obj is None:
            return self.register
        if obj.__name__ in self:
            return register_once(self)(obj)
        super().register(obj)
        return obj

    def get(self, name: str) -> Any:
        """Return the entry called ``name``.

        Raises:
            KeyError: names the config key, the value, and every known entry.
        """
        if name not in self:
            known = sorted(dict(self))
            raise KeyError(
                f"{self.config_key} is '{name}', which is not a registered {self._name}."
                f"{did_you_mean(name, known)} Known: {', '.join(known)}. If it is your own class, "
                "import the module that registers it before the model is built."
            )
        return super().get(name)


DENSE_HEAD_REGISTRY = ComponentRegistry("dense head", "MODEL.RETINANET.HEAD")
DENSE_HEAD_REGISTRY.__doc__ = """
Heads over a feature pyramid. Called with ``(cfg, input_shape: list[ShapeSpec], num_anchors: int)``.
``forward(features)`` takes L tensors (N, C, Hi, Wi) and returns
:class:`retinanet_ext.structures.HeadOutputs`: L logits (N, A*K, Hi, Wi), L deltas (N, A*4, Hi, Wi),
and whatever else it predicts by a name of its own, which the detector hands to the losses and the
decoder. The plain pair (logits, deltas) will do; a third output without a name is refused. An entry
whose ``anchors_per_level`` is True gets a
list of numbers, one per level, where levels differ in their anchors; one whose
``cls_agnostic_bbox_reg`` is False gives deltas (N, A*K*4, Hi, Wi); one with a ``quality_pred``
names its logits (N, A, Hi, Wi) ``quality``. Optional methods:

- ``named_losses(outputs, targets, anchors)``: losses of what it names, a dict of scalar sums, which
  the detector divides by the loss normalizer.
- ``partial_outputs(features, targets, wanted)``: a fast path, see
  :class:`retinanet_ext.protocols.PartialHead`; not inherited.
"""

ASSIGNER_REGISTRY = ComponentRegistry("assigner", "MODEL.RETINANET.ASSIGNER")
ASSIGNER_REGISTRY.__doc__ = """
Label every anchor with a ground-truth box. Called with ``(cfg)``. ``entry(anchors, gt_instances)``
takes L :class:`detectron2.structures.Boxes` and N ``Instances`` with ``gt_boxes`` and
``gt_classes``, and returns :class:`retinanet_ext.structures.DenseTargets`. It may have
``debug_targets(anchors, gt_instances)``, for tools that draw; for any entry that is
:func:`retinanet_ext.modeling.assigners.debug.describe_assignment`. ``matched_idxs`` of the targets
says which box each positive got; ``weights`` are for losses that have ``uses_weights``.
"""

CLS_LOSS_REGISTRY = ComponentRegistry("classification loss", "MODEL.RETINANET.CLS_LOSS")
CLS_LOSS_REGISTRY.__doc__ = """
Classification losses. Called with ``(cfg)``. ``forward(logits, targets)`` takes the head's L logits
(N, A*K, Hi, Wi) and :class:`retinanet_ext.structures.DenseTargets`, and returns the scalar sum over
all anchors that are not ignored; the detector divides it by the loss normalizer. Attributes of an
entry, False where absent, say what else it wants or can do:

- ``needs_anchors``: also gets ``anchors``, L Boxes (Hi*Wi*A, 4).
- ``needs_quality``: also gets ``quality`` (N, R) float32 without gradient: at positives the IoU of
  the predicted box with its ground truth, 0 elsewhere.
- ``multi_label``: counts ``targets.extra``, further true classes of positive anchors. Others call
  ``targets.require_one_class``.
- ``uses_weights``: counts ``targets.weights``; others are refused targets that have them.
- ``from_features(features, conv, targets)``: a method that gives the same sum for logits
  ``[conv(x) for x in features]`` without making them as a whole. It is not inherited: a subclass
  opts in again with ``from_features = Parent.from_features``, or gets the logits.
"""

BOX_LOSS_REGISTRY = ComponentRegistry("box loss", "MODEL.RETINANET.BBOX_REG_LOSS_TYPE")
BOX_LOSS_REGISTRY.__doc__ = """
Box regression losses. Called with ``(cfg)``. ``forward(deltas, anchors, gt_boxes)`` takes the
predicted deltas (P, 4) of P positive anchors, the anchors (P, 4) and their ground truth (P, 4),
both absolute XYXY pixels, and returns the scalar sum; P may be 0. An entry with ``uses_weights``
also gets ``weights`` (P,) where the targets have them.
"""
