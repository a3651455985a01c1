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

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from fvcore.common.registry import Registry

from .compat import replace_entry
from .errors import ConfigError, InputError, did_you_mean

T = TypeVar("T", bound=Callable[..., Any])

ConfigCheck = Callable[[Any], Sequence[str] | None]
"""Raises a UserError for a config that cannot work; may return warnings."""

CONFIG_CHECKS: dict[str, ConfigCheck] = {}
"""Checks of whole configs, by where they are defined; :func:`register_config_check` adds one."""

COMPONENT_REGISTRIES: list[ComponentRegistry] = []
"""All registries of this kind, yours included."""


def register_config_check(check: T) -> T:
    """Decorator: have ``validate_cfg`` call ``check(cfg)``; a reloaded module replaces its own."""
    CONFIG_CHECKS[f"{check.__module__}.{check.__qualname__}"] = check
    return check


def reads(*config_keys: str, check_config: ConfigCheck | None = None) -> Callable[[T], T]:
    """Decorator for a function that is an entry of a registry: ``config_keys``, ``check_config``.

    A class has them as attributes instead.
    """

    def decorate(function: T) -> T:
        function.config_keys = config_keys  # type: ignore[attr-defined]
        if check_config is not None:
            function.check_config = check_config  # type: ignore[attr-defined]
        return function

    return decorate


def require_keys(cfg: Any, *names: str) -> None:
    """Check that a config has keys of this package: someone's own script may not have added them.

    Args:
        cfg: the config.
        names: full names.

    Raises:
        ConfigError: one is missing; says how all of them are added.
    """
    for name in names:
        node = cfg
        for part in name.split("."):
            if part not in node:
                raise ConfigError(
                    f"the config has no key {name}, nor the others of this package; call "
                    "retinanet_ext.add_retinanet_ext_config(cfg) right after Detectron2's "
                    "get_cfg(), before a file is merged, or start from retinanet_ext.get_cfg()"
                )
            node = node[part]


def node_of(cfg: Any, node: Any = None) -> Any:
    """The section that a component reads: ``node``, or without one ``cfg.MODEL.RETINANET``."""
    return cfg.MODEL.RETINANET if node is None else node


def register_once(registry: Registry) -> Callable[[T], T]:
    """Decorator that registers a class under its name, replacing an earlier version of itself.

    Detectron2's own ``register`` fails when a notebook reloads the module that holds the class.

    Raises:
        ConfigError: if another class already has that name.
    """

    def decorate(cls: T) -> T:
        name = cls.__name__
        old = dict(registry).get(name)
        if old is None:
            registry.register(cls)
        elif (old.__module__, old.__qualname__) == (cls.__module__, cls.__qualname__):
            replace_entry(registry, name, cls)
        else:
            raise ConfigError(
                f"'{name}' is already registered by {old.__module__}; "
                f"give the class in {cls.__module__} another name"
            )
        return cls

    return decorate


class ComponentRegistry(Registry):
    """A registry whose lookup error lists the choices and whose entries survive a module reload."""

    def __init__(
        self,
        name: str,
        config_key: str,
        aliases: Mapping[str, str] | None = None,
        takes_cfg_only: bool = False,
    ):
        """
        Args:
            name: what the entries are, for messages.
            config_key: the full name of the config key that chooses an entry.
            aliases: further values of that key, and the entries that they stand for.
            takes_cfg_only: whether ``entry(cfg)`` is all that it takes to build one, so that
                validation can try.
        """
        super().__init__(name)
        self.config_key = config_key
        self.aliases = dict(aliases or {})
        self.takes_cfg_only = takes_cfg_only
        COMPONENT_REGISTRIES.append(self)

    def register(self, obj: Any = None) -> Any:
        """Register a class; use as ``@REGISTRY.register()`` or ``REGISTRY.register(cls)``."""
        if obj is None:
            return self.register
        if obj.__name__ in self:
            return register_once(self)(obj)
        super().register(obj)
        return obj

    def get(self, name: str) -> Any:
        """Return the entry called ``name``, or that an alias ``name`` stands for.

        Raises:
            ConfigError: names the config key, the value, and every known entry.
        """
        name = self.aliases.get(name, name)
        if name not in self:
            known = [*self.aliases, *sorted(dict(self))]
            raise ConfigError(
                f"{self.config_key} is '{name}', which is not a registered {self._name}."
                f"{did_you_mean(name, known)} Known: {', '.join(known)}. If it is your own class, "
                "import the module that registers it before the model is built."
            )
        return super().get(name)

    def build(self, cfg: Any, *args: Any, node: Any = None) -> Any:
        """Build the entry that ``node`` chooses, from ``node``.

        Args:
            cfg: the config.
            args: what an entry takes beside the config.
            node: the section to read. Default: ``MODEL.RETINANET``; an entry that takes no ``node``
                works with that one only.
        """
        entry = self.get(node_of(cfg, node)[self.config_key.rpartition(".")[2]])
        return entry(cfg, *args) if node is None else entry(cfg, *args, node=node)

    def check(self, cfg: Any, node: Any = None) -> list[str]:
        """Ask the entry that ``node`` chooses whether it can work; arguments of :meth:`build`.

        Returns:
            Warnings.

        Raises:
            ConfigError: there is no such entry.
            InputError: it cannot; names the key that chooses it, or those that it reads.
        """
        section, _, key = self.config_key.rpartition(".")
        name = node_of(cfg, node)[key]
        entry = self.get(name)
        further = {} if node is None else {"node": node}
        try:
            found = entry.check_config(cfg, **further) if hasattr(entry, "check_config") else ()
            if self.takes_cfg_only:
                entry(cfg, **further)
        except ValueError as error:
            names_a_key = f"{section}." in str(error)
            start = "" if names_a_key else f"{self.config_key} is '{name}', and "
            raise InputError(f"{start}{error}") from error
        return list(found or ())


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
says which box each positive got; ``weights`` are for losses that have ``uses_weights``.
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
  the predicted box with its ground truth, 0 elsewhere.
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
