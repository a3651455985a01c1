"""Stop on a config that cannot do what its author meant, before anything is built.

Rules of a single key stand where the key is defined, rules of a component in the component. Here
are the order of the checks, and what is about the config as a whole.
"""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, PROPOSAL_GENERATOR_REGISTRY
from fvcore.common.registry import Registry

from ..errors import ConfigError, InputError, did_you_mean
from ..registry import CONFIG_CHECKS, ComponentRegistry, require_keys
from ..structures import RETINANET_ARCHITECTURES
from .defaults import get_cfg
from .keys import KEYS
from .load import flatten
from .of_detectron2.rules import check_detectron2_rules
from .of_detectron2.views import check_tiles_and_views
from .run_rules import check_determinism, check_evaluation, check_step
from .solver_rules import check_schedule
from .unread_keys import (
    architectures_sections,
    check_added_keys,
    check_component_keys,
    check_keys_of_other_tasks,
    check_sections_of_others,
    check_two_stage_keys,
    choosers,
)

__all__ = ["validate_cfg"]


def validate_cfg(cfg: CfgNode, reference: CfgNode | None = None) -> list[str]:
    """Raise on settings that would be ignored or cannot work.

    Args:
        cfg: the config to check; not changed.
        reference: the config with default values that ``cfg`` was made from. Default: this
            package's :func:`get_cfg`, which has the keys of
            :func:`~retinanet_ext.config.register_config_key` too. Give your own if your project
            adds further keys.

    Returns:
        Warnings, each a sentence: settings that work, but may not do what was meant.

    Raises:
        ConfigError: unknown keys or component names, with the nearest real one.
        InputError: values that are ignored or impossible, with the key that is meant.
    """
    require_keys(cfg, "MODEL.RETINANET.HEAD")
    defaults = dict(flatten(get_cfg() if reference is None else reference))
    values = dict(flatten(cfg))
    _check_unknown_keys(values, defaults)
    _check_dataset_names(cfg)
    for name, key in KEYS.items():
        if name in values:
            key.check(values[name])
    warnings = check_detectron2_rules(cfg) + _check_model(cfg, values, defaults)
    for check in list(CONFIG_CHECKS.values()):
        warnings += check(cfg) or ()
    warnings += check_schedule(cfg, defaults["SOLVER.WARMUP_ITERS"], defaults["SOLVER.STEPS"])
    check_evaluation(cfg, defaults["TEST.BEST_METRIC"])
    warnings += check_tiles_and_views(cfg, META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE))
    check_step(cfg)
    check_determinism(cfg)
    return warnings


def _check_unknown_keys(values: dict[str, Any], defaults: dict[str, Any]) -> None:
    by_last_part = {key.rsplit(".", 1)[-1]: key for key in defaults}
    lines = []
    for key in values:
        if key in defaults:
            continue
        hint = did_you_mean(key, defaults)
        if not hint and (full := by_last_part.get(key.rsplit(".", 1)[-1])):
            hint = f" Did you mean '{full}'?"
        elif "." not in key and key in by_last_part:
            hint = f" Did you mean '{by_last_part[key]}'?"
        lines.append(f"config key '{key}' does not exist, so it would be ignored.{hint}")
    if lines:
        raise ConfigError(" ".join(lines))


def _check_dataset_names(cfg: CfgNode) -> None:
    for key in ("TRAIN", "TEST"):
        value = cfg.DATASETS[key]
        if isinstance(value, str) or not all(isinstance(name, str) for name in value):
            raise InputError(
                f"DATASETS.{key} must be a tuple of names, got {value!r}; a tuple of one needs a "
                f'comma: ("{value}",)'
            )


def _check_model(cfg: CfgNode, values: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """Check that what is named exists, that all that is set is read, and what components say."""
    name = cfg.MODEL.META_ARCHITECTURE
    architecture = _named("MODEL.META_ARCHITECTURE", name, META_ARCH_REGISTRY)
    sections = architectures_sections(META_ARCH_REGISTRY)
    parts = [architecture]
    if name not in RETINANET_ARCHITECTURES:
        generators = dict(PROPOSAL_GENERATOR_REGISTRY)
        parts.insert(0, generators.get(cfg.MODEL.PROPOSAL_GENERATOR.NAME))
    unread = sections - architectures_sections(("", part) for part in parts)
    own = architectures_sections(x for x in META_ARCH_REGISTRY if x[0] == "RetinaNetExt")
    if name in RETINANET_ARCHITECTURES or not unread & own:
        check_two_stage_keys(values, defaults)
        check_keys_of_other_tasks(values, defaults)
    if name in RETINANET_ARCHITECTURES:
        check_added_keys(values, defaults, unread & own)
        check_sections_of_others(values, defaults, unread - own, name)
    elif architecture.__module__.startswith("detectron2."):
        check_sections_of_others(values, defaults, unread, name)
    used = {
        k: v for k, v in choosers().items() if k in values and k.rpartition(".")[0] not in unread
    }
    for chooser, registry in used.items():
        _named(chooser, values[chooser], registry)
    warnings = check_component_keys(values, defaults, unread)
    for key in KEYS.values():
        if key.name.rpartition(".")[0] not in unread:
            warnings += key.check_read(values, defaults.get(key.name))
    for chooser, registry in used.items():
        if isinstance(registry, ComponentRegistry):
            warnings += registry.check(cfg)
        elif check := getattr(registry.get(values[chooser]), "check_config", None):
            warnings += check(cfg) or ()
    for part in parts:
        if check := getattr(part, "check_config", None):
            warnings += check(cfg) or ()
    return warnings


def _named(key: str, name: str, registry: Registry) -> Any:
    """The entry called ``name``."""
    known = sorted(dict(registry))
    if isinstance(registry, ComponentRegistry) or name in known:
        return registry.get(name)
    raise ConfigError(
        f"{key} is '{name}', which is not registered.{did_you_mean(name, known)} Known: "
        f"{', '.join(known)}. If it is your own, import the module that registers it."
    )
