"""The registries that this package adds beside Detectron2's own.

What an entry is called with and returns, as types: :mod:`retinanet_ext.protocols`.

Every entry is called with ``cfg`` first (write a ``from_config`` and decorate ``__init__`` with
:func:`detectron2.config.configurable`), so that a class can be chosen by its name in a yaml file.

What an entry of any registry, Detectron2's included, may say of itself; validation asks for nothing
else:

- ``config_keys``: names of the keys that it reads in the section of the key that chooses it, or
  full names of others. A changed key that some entry names, but none that is chosen, is refused if
  it is a key of this package or of yours, and a warning if it is Detectron2's. An entry without
  ``config_keys`` may read any.
- ``check_config(cfg, node=None)``, a class method: raises on settings that cannot work, with the
  key, its value and the fix; it may return a list of warnings. ``from_config`` calls it where the
  constructor does not see the same.
- ``node``: ``from_config(cfg, node=None)`` reads ``node`` instead of ``cfg.MODEL.RETINANET``, so
  that two heads of one model need no second config: ``FocalLoss(cfg, node=cfg.MODEL.SECOND)``.
- ``needs_class_counts``, of a classification loss: True, or a class method of ``node`` for it.
  ``CLASS_COUNTS`` is then filled from the training data when training starts, with the objects of
  each class, or with ``counts_images`` True with the images that hold some.
- ``freezable_parts``, of a head: what ``FREEZE`` can name beside "backbone", "fpn" and "head".
"""

from __future__ import annotations

from .component import (
    COMPONENT_REGISTRIES,
    CONFIG_CHECKS,
    ComponentRegistry,
    ConfigCheck,
    node_of,
    reads,
    register_config_check,
    register_once,
    require_keys,
)

__all__ = [
    "ASSIGNER_REGISTRY",
    "BOX_CODER_REGISTRY",
    "BOX_LOSS_REGISTRY",
    "CLS_LOSS_REGISTRY",
    "COMPONENT_REGISTRIES",
    "CONFIG_CHECKS",
    "DENSE_HEAD_REGISTRY",
    "ComponentRegistry",
    "ConfigCheck",
    "node_of",
    "reads",
    "register_config_check",
    "register_once",
    "require_keys",
]

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

ASSIGNER_REGISTRY = ComponentRegistry("assigner", "MODEL.RETINANET.ASSIGNER", takes_cfg_only=True)
ASSIGNER_REGISTRY.__doc__ = """
Label every anchor with a ground-truth box. Called with ``(cfg)``. ``entry(anchors, gt_instances)``
takes L :class:`detectron2.structures.Boxes` and N ``Instances`` with ``gt_boxes`` and
``gt_classes``, and returns :class:`retinanet_ext.structures.DenseTargets`. It may have
``debug_targets(anchors, gt_instances)``, for tools that draw; for any entry that is
:func:`retinanet_ext.modeling.assigners.debug.describe_assignment`. ``matched_idxs`` of the targets
says which box each positive got; ``weights`` are for losses that have ``uses_weights``, and
``quality`` for those that have ``needs_quality``.

- ``needs_predictions``: True for an entry that wants :class:`retinanet_ext.protocols.Predictions`
  as third argument, what the head says of the same images. The head is then called before it.
"""

CLS_LOSS_REGISTRY = ComponentRegistry(
    "classification loss", "MODEL.RETINANET.CLS_LOSS", takes_cfg_only=True
)
CLS_LOSS_REGISTRY.__doc__ = """
Classification losses. Called with ``(cfg)``. ``forward(logits, targets)`` takes the head's L logits
(N, A*K, Hi, Wi) and :class:`retinanet_ext.structures.DenseTargets`, and returns the scalar sum over
all anchors that are not ignored; the detector divides it by the loss normalizer. Attributes of an
entry, False where absent, say what else it wants or can do:

- ``classifiers``: ("sigmoid",) where absent, what MODEL.RETINANET.CLASSIFIER may be; with "softmax"
  logits are (N, A*(K+1), Hi, Wi), of each anchor the background last.
- ``needs_anchors``: also gets ``anchors``, L Boxes (Hi*Wi*A, 4).
- ``needs_quality``: also gets ``quality`` (N, R) float32 without gradient: at positives the IoU of
  the predicted box with its ground truth, or ``targets.quality`` of the assigner; 0 elsewhere.
- ``multi_label``: counts ``targets.extra``, further true classes of positive anchors. Others call
  ``targets.require_one_class``.
- ``uses_weights``: counts ``targets.weights``; others are refused targets that have them.
- ``uses_heat``: reads ``targets.heat`` where there is one, as of a detector of centre points.
- ``from_features(features, conv, targets)``: a method that gives the same sum for logits
  ``[conv(x) for x in features]`` without making them as a whole. It is not inherited: a subclass
  opts in again with ``from_features = Parent.from_features``, or gets the logits.
"""

BOX_LOSS_REGISTRY = ComponentRegistry(
    "box loss",
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE",
    # Detectron2's values of the key.
    aliases={"smooth_l1": "SmoothL1", "giou": "GIoU", "diou": "DIoU", "ciou": "CIoU"},
    takes_cfg_only=True,
)
BOX_LOSS_REGISTRY.__doc__ = """
Box regression losses. Called with ``(cfg)``. ``forward(deltas, anchors, gt_boxes)`` takes the
predicted deltas (P, 4) of P positive anchors, the anchors (P, 4) and their ground truth (P, 4),
both absolute XYXY pixels, and returns the scalar sum; P may be 0. An entry with ``uses_weights``
also gets ``weights`` (P,) where the targets have them; one with ``needs_strides`` gets ``strides``
(P,), those of the anchors' levels.
"""

BOX_CODER_REGISTRY = ComponentRegistry(
    "box coder", "MODEL.RETINANET.BOX_CODER", takes_cfg_only=True
)
BOX_CODER_REGISTRY.__doc__ = """
What the numbers that a head gives for a box mean. Called with ``(cfg)``; the same is built for the
head, the box loss and the decoder, so it holds no state. ``get_deltas(anchors, boxes)`` gives the
numbers (P, B) that stand for boxes (P, 4), and ``apply_deltas(numbers, anchors)`` the boxes, as
Detectron2's ``Box2BoxTransform``, which is the default. Attributes: ``num_outputs``, B, 4 where
absent; ``needs_strides``: both methods also get ``strides`` (P,) in pixels.
"""
