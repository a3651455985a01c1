"""Evaluation shared among processes: the numbers of one process, however the images divide."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.engine import launch
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from torch import nn

from retinanet_ext.data.datasets.register import register_coco_dataset
from retinanet_ext.engine.launch.child_errors import leave_group
from retinanet_ext.engine.trainer import RetinaNetTrainer, wrap_ddp
from tests.helpers.tiny import IMAGE_SIZE, tiny_cfg, write_dataset

NUM_IMAGES = 7


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("datasets"), num_train=1, num_val=NUM_IMAGES)


class RoughDetector(nn.Module):
    """Finds the objects of ``json_file``, near where they are: AP is neither 0 nor 100."""

    def __init__(self, json_file: Path):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.annotations = json.loads(json_file.read_text())["annotations"]

    def forward(self, inputs):
        return [{"instances": self.detect(sample["image_id"])} for sample in inputs]

    def detect(self, image_id):
        rng = np.random.default_rng(image_id)
        boxes, classes = [], []
        for ann in self.annotations:
            if ann["image_id"] == image_id:
                left, top, width, height = ann["bbox"]
                box = np.array([left, top, left + width, top + height])
                boxes += [box + rng.normal(scale=s, size=4) for s in (1.5, 4.0)]
                classes += [ann["category_id"] - 1] * 2
        found = Instances((IMAGE_SIZE, IMAGE_SIZE))
        found.pred_boxes = Boxes(torch.tensor(np.array(boxes), dtype=torch.float32) * self.scale)
        found.scores = torch.tensor(rng.uniform(0.1, 1.0, len(boxes)))
        found.pred_classes = torch.tensor(classes)
        return found


def evaluate_here(root: Path, folder: Path, num_images: int, real: bool) -> dict:
    """What this process sees, and gets, of an evaluation on the first ``num_images`` images."""
    own = folder / str(comm.get_rank())
    own.mkdir(parents=True)
    images = root / "bccd" / "val"
    content = json.loads((root / "bccd" / "annotations" / "instances_val.json").read_text())
    content["images"] = content["images"][:num_images]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    json_file = own / "truth.json"
    json_file.write_text(json.dumps(content))
    name = f"shard_{folder.name}"
    register_coco_dataset(name, str(json_file), str(images))

    cfg = tiny_cfg(own)
    cfg.OUTPUT_DIR = str(folder / "output")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), (name,)
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    cfg.TEST.DETECTIONS_PER_IMAGE = 20
    torch.manual_seed(0)
    model = wrap_ddp(RetinaNetTrainer.build_model(cfg) if real else RoughDetector(json_file))
    seen = []
    model.register_forward_pre_hook(
        lambda _, args: seen.extend(sample["image_id"] for sample in args[0])
    )
    try:
        results = RetinaNetTrainer.test(cfg, model)
    finally:
        DatasetCatalog.remove(name)  # the next test has one of this name
    return {"seen": seen, "results": results}


def _evaluate_all(root: str, folder: str, cases: list) -> None:
    torch.set_num_threads(1)
    for num_images, real in cases:
        name = f"{num_images}_{real}"
        found = evaluate_here(Path(root), Path(folder) / name, num_images, real)
        (Path(folder) / name / f"found_{comm.get_rank()}.json").write_text(json.dumps(found))
    leave_group()


def predictions(folder: Path) -> list:
    return torch.load(folder / "output" / "inference" / "instances_predictions.pth")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_shards_give_exactly_the_numbers_of_one_process(root, tmp_path, processes):
    # The second number leaves a process without an image.
    cases = [(NUM_IMAGES, False), (processes - 1, False), (5, True)]
    (tmp_path / "many").mkdir()
    (tmp_path / "one").mkdir()
    arguments = (str(root), str(tmp_path / "many"), cases)
    launch(_evaluate_all, processes, dist_url="auto", args=arguments)

    threads = torch.get_num_threads()
    _evaluate_all(str(root), str(tmp_path / "one"), cases)
    torch.set_num_threads(threads)

    for num_images, real in cases:
        many, one = (tmp_path / kind / f"{num_images}_{real}" for kind in ("many", "one"))
        expected = json.loads((one / "found_0.json").read_text())
        shards = [json.loads((many / f"found_{r}.json").read_text()) for r in range(processes)]
        assert sorted(sum((s["seen"] for s in shards), [])) == list(range(1, num_images + 1))
        assert min(len(s["seen"]) for s in shards) == num_images // processes
        # Bitwise: NaN (AP of a class without objects) is written as NaN by json.
        assert json.dumps(shards[0]["results"]) == json.dumps(expected["results"])
        assert not any(s["results"] for s in shards[1:])
        assert predictions(many) == predictions(one)
        if not real:
            assert 5 < expected["results"]["bbox"]["AP"] < 95
