"""The OUTPUT_DIR of a training, as far as a Predictor reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model

from .parity import spread_predictions
from .tiny import CLASSES, tiny_cfg


def write_run(folder: Path, seed: int = 0, opts: tuple[Any, ...] = ()) -> Path:
    """Write a tiny model that finds something in every picture, and its config."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg = tiny_cfg(folder)
    cfg.merge_from_list(list(opts))
    torch.manual_seed(seed)
    model = build_model(cfg)
    spread_predictions(model)
    if cfg.MODEL.RETINANET.BOX_CODER == "ltrb":
        with torch.no_grad():  # else half of the boxes have no area
            model.head.bbox_pred.bias += 1.5
    state = {"model": model.state_dict(), "thing_classes": list(CLASSES)}
    torch.save(state, folder / "model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder
