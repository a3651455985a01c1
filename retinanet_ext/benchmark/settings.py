"""What a benchmark runs with; travels to the processes that measure memory as json."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from detectron2.config import CfgNode

from ..config import get_cfg
from ..engine.user_modules import import_modules

__all__ = ["LVIS_CLASSES", "Settings"]

LVIS_CLASSES = 1203


@dataclass(frozen=True)
class Settings:
    """One benchmark run.

    Attributes:
        config: yaml text of the whole config, with META_ARCHITECTURE RetinaNetExt.
        size: (height, width) of the images in pixels.
        batch: images of a training step.
        num_gt: ground-truth boxes per image.
        images: of the evaluation task.
        repeats: timed rounds of each measurement; None lets their duration decide.
        threads: PyTorch's CPU threads.
        precision: what both sides are timed in, see `precision.py`; they are compared in float32.
        torchvision: whether torchvision's RetinaNet is measured too.
        engines: whether inference is measured by ONNX Runtime and OpenVINO too.
        many_classes: K of the task of that name.
        imports: names of the user's modules, which the config needs.
    """

    config: str
    size: tuple[int, int]
    batch: int = 2
    num_gt: int = 20
    images: int = 500
    repeats: int | None = None
    threads: int = 1
    precision: str = "float32"
    torchvision: bool = True
    engines: bool = True
    many_classes: int = LVIS_CLASSES
    imports: tuple[str, ...] = ()

    @cached_property
    def cfg(self) -> CfgNode:
        """The config, frozen."""
        import_modules(self.imports)
        cfg = get_cfg()
        cfg.merge_from_other_cfg(CfgNode.load_cfg(self.config))
        cfg.freeze()
        return cfg

    @property
    def device(self) -> str:
        """MODEL.DEVICE."""
        return self.cfg.MODEL.DEVICE

    @property
    def num_classes(self) -> int:
        """K."""
        return self.cfg.MODEL.RETINANET.NUM_CLASSES

    def with_keys(self, keys: dict[str, Any]) -> Settings:
        """The same with other values of config keys, such as ``{"TEST.AUG.ENABLED": False}``."""
        cfg = self.cfg.clone()
        cfg.defrost()
        for name, value in keys.items():
            *nodes, key = name.split(".")
            node = cfg
            for part in nodes:
                node = node[part]
            node[key] = value
        return dataclasses.replace(self, config=cfg.dump())

    def with_precision(self, precision: str) -> Settings:
        """The same in another precision."""
        return dataclasses.replace(self, precision=precision)

    def with_classes(self, num_classes: int) -> Settings:
        """The same with K classes."""
        return self.with_keys({"MODEL.RETINANET.NUM_CLASSES": num_classes})

    def with_gt(self, num_gt: int) -> Settings:
        """The same with so many boxes per image."""
        return dataclasses.replace(self, num_gt=num_gt)

    def tiny(self) -> Settings:
        """The same work on one small image: loads code, takes next to no memory."""
        return dataclasses.replace(self, size=(64, 64), batch=1, num_gt=2)

    def to_json(self) -> str:
        """As text for :meth:`from_json`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """What :meth:`to_json` was called on."""
        values = json.loads(text)
        for name in ("size", "imports"):
            values[name] = tuple(values[name])
        return cls(**values)
