"""The small trained model that comes with the package: shapes in generated scenes.

``dev/make_demo_model.py`` makes it. Its folder is as the OUTPUT_DIR of a training, with what using
the model takes, so ``demo`` stands wherever such a folder does. As ``MODEL.WEIGHTS``,
:data:`DEMO_WEIGHTS` is a start for other data: a network that saw ImageNet before the scenes.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["DEMO", "DEMO_FILE", "DEMO_FOLDER", "DEMO_WEIGHTS", "has_demo"]

DEMO = "demo"
DEMO_FOLDER = Path(__file__).resolve().parents[1] / "demo"
DEMO_FILE = "model_final.pth"
DEMO_WEIGHTS = "shipped://demo"


def has_demo() -> bool:
    """Whether the package is whole."""
    return os.path.isfile(DEMO_FOLDER / DEMO_FILE)
