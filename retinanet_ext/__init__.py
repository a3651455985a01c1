"""RetinaNet for Detectron2.

Importing this package registers its detector, heads, anchors, assigners, losses and dataset names
with Detectron2; that is the import's only side effect. The names of ``__all__`` are loaded when
they are first used:

- ``RetinaNetExt``: the detector; ``detectron2.modeling.build_model`` builds it from a config.
- ``RetinaNetTrainer``, ``evaluate``: training, and evaluation of weights, from a config.
- ``get_cfg``, ``load_config_file``, ``validate_cfg``: a config with all keys, a yaml file merged
  into it, and the check of all values. ``add_retinanet_ext_config`` adds the keys to someone's
  config, ``register_config_key`` one of your own; ``find_config``, ``config_names``: the configs
  that come with the package.
- ``Predictor``: a trained model to be used: pictures in, detections out.
- ``register_coco_dataset``: a COCO json under a name for ``DATASETS.TRAIN`` and ``TEST``.
- ``DENSE_HEAD_REGISTRY``, ``ASSIGNER_REGISTRY``, ``CLS_LOSS_REGISTRY``, ``BOX_LOSS_REGISTRY``,
  ``BOX_CODER_REGISTRY``: where components of your own are registered.
- ``UserError``, ``ConfigError``, ``TrainingFailed``: what to catch.

``retinanet_ext.losses`` is plain PyTorch, and works where Detectron2 is not installed.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import (
        add_retinanet_ext_config,
        get_cfg,
        load_config_file,
        register_config_key,
        validate_cfg,
    )
    from .config.shipped import config_names, find_config
    from .data.datasets.register import register_coco_dataset
    from .engine import RetinaNetTrainer, evaluate
    from .errors import ConfigError, TrainingFailed, UserError
    from .inference import Predictor
    from .modeling import RetinaNetExt
    from .registry import (
        ASSIGNER_REGISTRY,
        BOX_CODER_REGISTRY,
        BOX_LOSS_REGISTRY,
        CLS_LOSS_REGISTRY,
        DENSE_HEAD_REGISTRY,
    )

__version__ = "0.1.0"

__all__ = [
    "ASSIGNER_REGISTRY",
    "BOX_CODER_REGISTRY",
    "BOX_LOSS_REGISTRY",
    "CLS_LOSS_REGISTRY",
    "DENSE_HEAD_REGISTRY",
    "ConfigError",
    "Predictor",
    "RetinaNetExt",
    "RetinaNetTrainer",
    "TrainingFailed",
    "UserError",
    "__version__",
    "add_retinanet_ext_config",
    "config_names",
    "evaluate",
    "find_config",
    "get_cfg",
    "load_config_file",
    "register_coco_dataset",
    "register_config_key",
    "validate_cfg",
]

# Public name -> the module that has it. Type checkers read the imports above instead; a test holds
# the two equal.
_HOME = {
    "ASSIGNER_REGISTRY": "registry",
    "BOX_CODER_REGISTRY": "registry",
    "BOX_LOSS_REGISTRY": "registry",
    "CLS_LOSS_REGISTRY": "registry",
    "DENSE_HEAD_REGISTRY": "registry",
    "ConfigError": "errors",
    "TrainingFailed": "errors",
    "UserError": "errors",
    "Predictor": "inference",
    "RetinaNetExt": "modeling",
    "RetinaNetTrainer": "engine",
    "evaluate": "engine",
    "add_retinanet_ext_config": "config",
    "get_cfg": "config",
    "load_config_file": "config",
    "register_config_key": "config",
    "validate_cfg": "config",
    "config_names": "config.shipped",
    "find_config": "config.shipped",
    "register_coco_dataset": "data.datasets.register",
}
# Rooms of which `retinanet_ext.ROOM` works without an import of its own.
_ROOMS = (
    "config",
    "data",
    "engine",
    "errors",
    "evaluation",
    "inference",
    "losses",
    "modeling",
    "registry",
    "structures",
)

_DETECTRON2_MISSING = (
    "retinanet_ext.{name} needs Detectron2, which is not installed in this environment: run "
    "`python dev/install_detectron2.py` from a checkout of retinanet_ext, or follow Detectron2's "
    "own installation page; only retinanet_ext.losses works without it."
)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name, name if name in _ROOMS else None)
    if home is None:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    try:
        module = importlib.import_module(f"{__name__}.{home}")
    except ModuleNotFoundError as error:
        if _HAS_DETECTRON2:
            raise
        from .errors import MissingPackageError

        raise MissingPackageError(_DETECTRON2_MISSING.format(name=name)) from error
    value = module if name in _ROOMS else getattr(module, name)
    globals()[name] = value  # the next use finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, *(name for name in globals() if name.startswith("__"))})


_HAS_DETECTRON2 = True
try:
    import detectron2 as _detectron2  # noqa: F401
except ModuleNotFoundError as error:
    # A broken Detectron2 must not pass as an absent one.
    if error.name != "detectron2":
        raise
    _HAS_DETECTRON2 = False
else:
    # Not lazily: someone's `build_model` looks the names up in Detectron2's registries, which
    # cannot ask for what is not there yet.
    with warnings.catch_warnings():
        # Detectron2 and fvcore compile TorchScript while they are imported, which recent PyTorch
        # deprecates: nothing that a user of this package can act on.
        warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        from . import modeling  # noqa: F401  (registers the components)
        from .data.datasets.register import register_builtin_datasets
    from .weights import pretrained as _pretrained  # noqa: F401  (registers its check of configs)

    register_builtin_datasets()
