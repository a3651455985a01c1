"""The systems that are compared: what each is, and how it answers that most of a picture is easy
background."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["PROJECT", "ROOT", "SYSTEMS", "System", "by_name"]

PROJECT = Path(__file__).resolve().parents[1]
ROOT = PROJECT.parents[1]
OURS = ("ancestors",)


@dataclass(frozen=True)
class System:
    """A detector.

    Attributes:
        name: on the command line.
        label: in tables and figures.
        year: of the paper.
        answer: how it deals with the imbalance of easy background and objects.
        config: of ``train_net.py``, from the repository's root; "" for what train_own.py trains.
        imports: modules that register its parts.
        proposals: name of the system that has to be trained before, and gives it boxes.
        budget: its share of the minutes.
        floor: AP50 on the quickstart after 1.5 minutes on two cores, at least: below it something
            is broken.
        shown: whether it is a detector; what only gives proposals is not.
    """

    name: str
    label: str
    year: int
    answer: str
    config: str = ""
    imports: tuple[str, ...] = ()
    proposals: str = ""
    budget: float = 1.0
    floor: float = 50.0
    shown: bool = True

    @property
    def path(self) -> Path | None:
        return ROOT / self.config if self.config else None


SYSTEMS = (
    System(
        "viola_jones",
        "Viola-Jones",
        2001,
        "a cascade: each stage drops windows that are surely background; the next learns from "
        "those that passed",
        floor=25.0,
    ),
    System(
        "overfeat",
        "OverFeat-style",
        2013,
        "of each picture only the background windows that offend most, three for each of an object",
        floor=40.0,
    ),
    System(
        "rpn",
        "RPN",
        2015,
        "256 anchors of a picture, drawn at random, half of them objects",
        "projects/Ancestors/configs/quickstart_rpn.yaml",
        budget=0.5,
        shown=False,
    ),
    System(
        "rcnn",
        "R-CNN (Fast)",
        2014,
        "boxes from elsewhere leave out nearly all background; a quarter of the sample are objects",
        "projects/Ancestors/configs/quickstart_rcnn.yaml",
        proposals="rpn",
        budget=0.5,
    ),
    System(
        "faster_rcnn",
        "Faster R-CNN",
        2015,
        "two stages: proposals leave out background, and both stages learn from a sample",
        "configs/quickstart_faster_rcnn.yaml",
    ),
    System(
        "ssd",
        "SSD-style",
        2016,
        "hard negative mining: the three hardest background boxes for each of an object",
        "projects/Ancestors/configs/quickstart_ssd.yaml",
        OURS,
    ),
    System(
        "ssd_no_mining",
        "SSD-style, no mining",
        2016,
        "none: softmax cross entropy over all boxes",
        "projects/Ancestors/configs/quickstart_ssd_no_mining.yaml",
        OURS,
        floor=1.0,
    ),
    System(
        "yolo",
        "YOLO-style",
        2018,
        "few boxes, and an objectness of its own, so that background teaches no class",
        "projects/Ancestors/configs/quickstart_yolo.yaml",
        OURS,
        floor=35.0,
    ),
    System(
        "retinanet",
        "RetinaNet",
        2017,
        "focal loss: every anchor counts, an easy one next to nothing",
        "configs/quickstart.yaml",
    ),
    System(
        "fcos",
        "FCOS",
        2019,
        "focal loss, and only the middle of an object is positive",
        "configs/quickstart_fcos.yaml",
    ),
    System(
        "centernet",
        "CenterNet",
        2019,
        "focal loss on a heat map, whose surroundings of an object count less as background",
        "projects/CenterNet/configs/quickstart_centernet.yaml",
        ("projects.CenterNet",),
    ),
)


def by_name(name: str) -> System:
    return next(system for system in SYSTEMS if system.name == name)
