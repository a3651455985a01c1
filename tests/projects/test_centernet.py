"""projects/CenterNet as a detector among the others: configs, losses, training, Predictor."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, Instances
from PIL import Image

import train_net
from projects.CenterNet.centernet import CenterNet, around, box_maps, centre_points
from retinanet_ext import Predictor, UserError, get_cfg, load_config_file, validate_cfg
from retinanet_ext.cli import train
from retinanet_ext.cli.train import projects_of
from retinanet_ext.errors import ConfigError, InputError
from retinanet_ext.structures import detection_section
from tests.helpers.regnet import REGNET

pytestmark = pytest.mark.usefixtures("centernet")

ROOT = Path(train_net.__file__).resolve().parent
CONFIGS = ROOT / "projects" / "CenterNet" / "configs"
QUICKSTART = CONFIGS / "quickstart_centernet.yaml"
# A pyramid down to stride 4 over a RegNet of a few channels.
TINY: dict[str, Any] = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "build_fpn_backbone_p6p7",
    **REGNET,
    "MODEL.FPN.IN_FEATURES": ["s1", "s2", "s3", "s4"],
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.REGNET.OUT_FEATURES": ["s1", "s2", "s3", "s4"],
    "MODEL.CENTERNET.HEAD_WIDTH": 32,
    "MODEL.CENTERNET.RADIUS": "correct",
    "MODEL.CENTERNET.BOX_REACH": 0,
    "MODEL.CENTERNET.SIZE_LOSS_UNIT": "cells",
    "MODEL.CENTERNET.SIZE_LOSS_WEIGHT": 0.1,
    "MODEL.CENTERNET.SIZE_SCALE": 1.0,
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.MAX_SIZE_TEST": 96,
}


def config(*opts: Any, file: Path = QUICKSTART) -> CfgNode:
    cfg = get_cfg()
    load_config_file(cfg, file)
    cfg.MODEL.DEVICE = "cpu"
    cfg.merge_from_list(list(opts))
    return cfg


def tiny(*opts: Any) -> CfgNode:
    return config(*(x for pair in TINY.items() for x in pair), *opts)


def scene(boxes: list[list[float]], classes: list[int], size=(64, 96)) -> dict[str, Any]:
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    generator = torch.Generator().manual_seed(len(boxes))
    image = torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator)
    return {"image": image, "instances": instances}


@pytest.fixture
def model() -> CenterNet:
    torch.manual_seed(0)
    return build_model(tiny()).train()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configs_are_valid(path: Path):
    cfg = config(file=path)
    assert validate_cfg(cfg) == []
    assert detection_section(cfg) == "MODEL.CENTERNET"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("MODEL.RETINANET.NUM_CLASSES", 5, "set MODEL.CENTERNET.NUM_CLASSES instead"),
        ("MODEL.RETINANET.NUM_CONVS", 2, "does not read MODEL.RETINANET; remove it"),
        ("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.3, "set MODEL.CENTERNET.NMS_THRESH_TEST instead"),
        ("MODEL.SPEEDUPS.COMPILE", True, "does not read MODEL.SPEEDUPS; remove it"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8]], "does not read MODEL.ANCHOR_GENERATOR"),
        ("MODEL.MASK_ON", True, "set it False"),
        ("MODEL.CENTERNET.CLS_LOSS", "FocalLoss", "set it to HeatmapFocal, or give"),
        ("MODEL.CENTERNET.RADIUS", "author", "Did you mean 'authors'"),
        ("MODEL.CENTERNET.SIZE_LOSS_UNIT", "pixels", "set it to one of cells, object"),
        ("MODEL.CENTERNET.NMS_THRESH_TEST", 0.3, "NMS_KIND is 'none', which does not read it"),
    ],
)
def test_what_nobody_reads_is_refused(key: str, value: Any, says: str):
    with pytest.raises(UserError, match=f"{key} is .*{says}"):
        validate_cfg(config(key, value))


def test_its_keys_are_refused_where_another_detector_is_trained():
    for name in ("quickstart.yaml", "quickstart_faster_rcnn.yaml"):
        cfg = get_cfg()
        load_config_file(cfg, f"configs/{name}")
        assert validate_cfg(cfg) == []
        cfg.MODEL.CENTERNET.RADIUS = "authors"
        with pytest.raises(InputError, match=r"or set MODEL\.META_ARCHITECTURE to CenterNet"):
            validate_cfg(cfg)


def test_the_parts_to_freeze_are_the_trainers():
    validate_cfg(config("MODEL.RETINANET.FREEZE", ["backbone"]))


def test_a_feature_that_the_backbone_lacks_is_named():
    with pytest.raises(InputError, match=r"IN_FEATURE is 'p1', but .* gives p2, p3, .* stride 4"):
        build_model(tiny("MODEL.CENTERNET.IN_FEATURE", "p1"))


def test_perfect_maps_cost_nothing_but_the_heat(model):
    batch = [scene([[8, 8, 40, 30], [50, 20, 90, 60]], [0, 3]), scene([], [])]
    instances = [x["instances"] for x in batch]
    points = centre_points(instances, 4, (16, 24))
    size, offset = box_maps(points, 2, (16, 24))
    logits = torch.full((2, 5, 16, 24), -20.0)
    logits[points.image, points.label, points.row, points.column] = 20.0
    losses = model.losses((logits, size, offset), instances)
    assert losses["loss_size"] == 0 and losses["loss_offset"] == 0
    assert losses["loss_cls"] < 1e-6
    # In cells, per object, each weighted: two objects, a cell off in x and y.
    losses = model.losses((logits, size + 1, offset + 1), instances)
    assert losses["loss_size"].item() == pytest.approx(0.1 * 2)
    assert losses["loss_offset"].item() == pytest.approx(2.0)


def test_sizes_may_be_counted_in_the_objects_own(model):
    model.size_unit, model.size_weight = "object", 1.0
    instances = [scene([[8, 8, 40, 28], [50, 20, 52, 60]], [0, 3])["instances"]]
    points = centre_points(instances, 4, (16, 24))
    size, offset = box_maps(points, 1, (16, 24))
    logits = torch.zeros(1, 5, 16, 24)
    losses = model.losses((logits, size + 1, offset), instances)
    # Widths of 8 and 0.5 cells, the latter counted as one, and heights of 5 and 10, a cell off.
    expected = (1 / 8 + 1 / 5 + 1 + 1 / 10) / 2
    assert losses["loss_size"].item() == pytest.approx(expected)


def test_the_box_of_an_object_counts_once_however_many_cells_learn_it(model):
    instances = [scene([[8, 8, 40, 28], [0, 40, 8, 60]], [0, 3])["instances"]]
    points = centre_points(instances, 4, (16, 24))
    logits = torch.zeros(1, 5, 16, 24)
    for reach in (0, 1, 2):
        model.box_reach = reach
        cells = around(points, reach, (16, 24))
        size, offset = box_maps(cells, 1, (16, 24))
        right = model.losses((logits, size, offset), instances)
        assert right["loss_size"] == 0 and right["loss_offset"] == 0
        off = model.losses((logits, size + 1, offset + 1), instances)
        assert off["loss_offset"].item() == pytest.approx(2.0)


def test_two_objects_in_one_cell_are_both_learned(model):
    instances = [scene([[10, 10, 30, 30], [0, 0, 40, 40]], [0, 1])["instances"]]
    points = centre_points(instances, 4, (16, 24))
    targets = model.targets(points, torch.zeros(1, 5, 16, 24))
    assert targets.heat is not None
    assert (targets.heat == 1).nonzero()[:, 2].tolist() == [0, 1]
    maps = torch.zeros(1, 5, 16, 24), torch.zeros(1, 2, 16, 24), torch.zeros(1, 2, 16, 24)
    losses = model.losses(maps, instances)
    assert losses["loss_size"].item() == pytest.approx(0.1 * (5 + 5 + 10 + 10) / 2)


def test_images_without_objects_train(model):
    losses = model([scene([], []), scene([], [])])
    assert set(losses) == {"loss_cls", "loss_size", "loss_offset"}
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_wrong_ground_truth_is_refused(model):
    with pytest.raises(InputError, match=r"class 7, but MODEL\.CENTERNET\.NUM_CLASSES is 5"):
        model([scene([[1.0, 1.0, 9.0, 9.0]], [7])])


def test_it_learns_a_few_scenes_and_then_finds_them(model):
    batch = [
        scene([[8.0, 8.0, 40.0, 30.0], [50.0, 20.0, 90.0, 60.0]], [0, 3]),
        scene(
            [[20.0, 10.0, 60.0, 50.0], [64.0, 4.0, 84.0, 24.0], [4.0, 40.0, 20.0, 60.0]], [1, 2, 4]
        ),
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.004)
    for _ in range(120):
        losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    model.train(False)
    for module in model.modules():  # what a batch of two noise pictures has for statistics
        if isinstance(module, torch.nn.BatchNorm2d):
            module.training = True
    with torch.no_grad():
        outputs = model(batch)
    for inputs, output in zip(batch, outputs, strict=True):
        found = output["instances"]
        found = found[found.scores > 0.3]
        expected = inputs["instances"]
        assert sorted(found.pred_classes.tolist()) == sorted(expected.gt_classes.tolist())
        for box, label in zip(expected.gt_boxes.tensor, expected.gt_classes, strict=True):
            (same,) = found.pred_boxes.tensor[found.pred_classes == label]
            assert (same - box).abs().max() < 8
    # Peaks are one per object already: NMS finds nothing to do.
    model.decoder = dataclasses.replace(model.decoder, nms_kind="per_class")
    with torch.no_grad():
        suppressed = model(batch)
    for before, after in zip(outputs, suppressed, strict=True):
        left = [(x["instances"].scores > 0.3).sum() for x in (before, after)]
        assert left[0] == left[1]


def test_a_resnet_with_steps_up_gives_stride_4():
    cfg = config(file=CONFIGS / "centernet_R_18_140e.yaml")
    backbone = build_backbone(cfg)
    assert backbone.output_shape() == {"p2": ShapeSpec(channels=64, stride=4)}
    maps = backbone.eval()(torch.zeros(1, 3, 64, 96))
    assert maps["p2"].shape == (1, 64, 16, 24) and backbone.size_divisibility == 32
    up = backbone.steps[0][3]
    doubled = up(torch.ones(1, up.in_channels, 5, 6))
    torch.testing.assert_close(doubled[..., 1:-1, 1:-1], torch.ones(1, up.in_channels, 8, 10))


def test_a_predictor_runs_it(tmp_path: Path):
    cfg = tiny("MODEL.CENTERNET.SCORE_THRESH_TEST", 0.0, "MODEL.WEIGHTS", str(tmp_path / "w.pth"))
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "w.pth")
    picture = tmp_path / "picture.png"
    Image.new("RGB", (80, 60), "gray").save(picture)
    instances = Predictor(cfg)(str(picture)).instances
    assert instances.image_size == (60, 80) and len(instances) > 0


def test_train_net_imports_the_project_of_a_config(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in (QUICKSTART, QUICKSTART.relative_to(ROOT)):
        assert projects_of(str(name)) == ["projects.CenterNet"]
    for other in ("configs/quickstart.yaml", "projects/FocalLossPaper/configs/1a_ce.yaml", ""):
        assert projects_of(other) == []
    jobs: list[Any] = []
    monkeypatch.setattr(train, "launch_job", lambda main, args: jobs.append(args))
    train_net.run(["--config-file", str(QUICKSTART), "--import", "math", "SEED", "2"])
    assert jobs[0].imports == ["projects.CenterNet", "math"]


def test_a_section_that_nobody_added_asks_for_the_module(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("MODEL:\n  SOMEONES: {WIDTH: 3}\n")
    with pytest.raises(ConfigError, match=r"MODEL\.SOMEONES.* pass --import MODULE"):
        load_config_file(get_cfg(), path)
