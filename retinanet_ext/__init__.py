"""RetinaNet for Detectron2.

Importing this package registers its detector, heads, anchors, assigners, losses and dataset names
with Detectron2; that is the import's only side effect.
"""

from __future__ import annotations

import warnings
from typing import Any

__version__ = "0.1.0"

_DETECTRON2_MISSING = (
    "retinanet_ext.{name} needs Detectron2, which is not installed in this environment: run "
    "`python dev/install_detectron2.py` from a checkout of retinanet_ext, or follow Detectron2's "
    "own installation page; only retinanet_ext.losses works without it."
)

try:
    import detectron2 as _detectron2  # noqa: F401
except ModuleNotFoundError as error:
    # A broken Detectron2 must not pass as an absent one.
    if error.name != "detectron2":
        raise

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(_DETECTRON2_MISSING.format(name=name))

else:
    with warnings.catch_warnings():
        # Detectron2 and fvcore compile TorchScript while they are imported, which recent PyTorch
        # deprecates: nothing that a user of this package can act on.
        warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        from . import modeling  # noqa: F401  (registers the components)
        from .config import (
            add_retinanet_ext_config,
            get_cfg,
            load_config_file,
            register_config_key,
            validate_cfg,
        )
        from .data.datasets.register import register_builtin_datasets

    register_builtin_datasets()

    __all__ = [
        "__version__",
        "add_retinanet_ext_config",
        "get_cfg",
        "load_config_file",
        "register_config_key",
        "validate_cfg",
    ]
