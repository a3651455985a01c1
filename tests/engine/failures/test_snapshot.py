"""The report and the snapshot of a step whose loss is not finite, and its repetition."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.structures import BitMasks, Boxes
from torch import nn

from retinanet_ext.engine.failures.nonfinite import NonFiniteLoss
from retinanet_ext.engine.failures.snapshot import (
    NonFiniteReporter,
    gradient_norms,
    pack_batch,
    unpack_batch,
)
from retinanet_ext.engine.replay import load_snapshot, replay
from retinanet_ext.engine.step.bad_batches import SkipBadBatches
from retinanet_ext.engine.step.train_step import TrainStep
from retinanet_ext.modeling import RetinaNetHead
from retinanet_ext.registry import DENSE_HEAD_REGISTRY
from tests.helpers.steps import Batch, make_batch, make_cfg, make_model, sgd, train


@dataclass
class Failure:
    """A run that failed at its second step."""

    cfg: CfgNode
    weights: dict[str, Any]
    batch: Batch
    error: NonFiniteLoss

    @property
    def folder(self) -> Path:
        return Path(self.cfg.OUTPUT_DIR) / "trouble" / "nonfinite_iter1_rank0"


@pytest.fixture(scope="module")
def failure(tmp_path_factory: pytest.TempPathFactory) -> Failure:
    folder = tmp_path_factory.mktemp("failure")
    cfg, model = make_cfg(folder), make_model(folder)
    good, bad = make_batch(0, images=2), make_batch(1, images=2)
    bad[1]["image"] = torch.full_like(bad[1]["image"], 1e38)  # too bright for float32
    reporter = NonFiniteReporter(cfg, run_seed=5)
    step = TrainStep(
        model, [good, bad], sgd(model), accum_steps=2, bad_batches=SkipBadBatches(0, reporter)
    )
    with pytest.raises(NonFiniteLoss) as caught:
        train(step, 2)
    return Failure(cfg, model.state_dict(), bad, caught.value)


def test_report_tells_losses_images_and_gradients(failure: Failure):
    report = json.loads((failure.folder / "report.json").read_text())
    assert report["iteration"] == 1 and report["learning_rates"] == [0.01]
    assert report["losses"]["loss_cls"] == "nan"
    first, second = report["images"]
    assert first["file"] == "1_0.png" and first["boxes"] == 0 and "sides" not in first
    assert second["boxes"] == 1 and 12 <= second["sides"][0] <= second["sides"][1] <= 32
    assert second["pixels"][0] > 9e37 and (second["width"], second["height"]) == (64, 64)
    assert len(report["gradient_norms"]) == 10 and "nan" in report["gradient_norms"].values()
    assert report["not_finite"] == [] and report["num_not_finite"] == 0
    text = (failure.folder / "report.txt").read_text()
    assert "loss_cls: nan" in text and "  1_1.png, 64x64, pixels from 1e+38" in text


def test_error_names_folder_and_command(failure: Failure):
    assert f"replay-step {failure.folder}/snapshot.pth" in str(failure.error)


def test_snapshot_is_the_state_before_the_step(failure: Failure):
    snapshot = torch.load(failure.folder / "snapshot.pth", weights_only=True)
    assert snapshot["model"].keys() == failure.weights.keys()
    for name, value in failure.weights.items():
        assert torch.equal(snapshot["model"][name], value), name
    batch = unpack_batch(snapshot["batch"])
    assert torch.equal(batch[1]["image"], failure.batch[1]["image"])
    assert (snapshot["iteration"], snapshot["run_seed"], snapshot["accum_steps"]) == (1, 5, 2)


def test_replay_finds_where_it_began(failure: Failure):
    snapshot = load_snapshot(str(failure.folder / "snapshot.pth"))
    found = replay(snapshot)
    assert not found.finite and found.weights == () and found.precision == "float32"
    assert math.isnan(found.losses["loss_cls"])
    assert found.module.startswith("backbone.bottom_up.stem") and found.inputs_finite
    assert found.gradient
    for name, value in failure.weights.items():
        assert torch.equal(snapshot["model"][name], value), name


def test_replay_of_a_good_batch_gives_the_losses_of_the_run(failure: Failure):
    snapshot = load_snapshot(str(failure.folder / "snapshot.pth"))
    model = make_model(Path(failure.cfg.OUTPUT_DIR).parent)
    model.load_state_dict(snapshot["model"])
    batch = make_batch(2, images=2)
    snapshot["batch"] = pack_batch(batch)
    storage = train(TrainStep(model, [batch], sgd(model), accum_steps=2), 1)
    found = replay(snapshot)
    assert found.finite and found.module == found.gradient == ""
    for name, loss in found.losses.items():
        assert loss == storage.latest()[name][0]


def test_replay_looks_at_what_a_head_names(failure: Failure):
    class Undefined(RetinaNetHead):
        def named_outputs(self, cls_features, bbox_features):
            return {"odd": [torch.full_like(x, math.nan) for x in bbox_features]}

    DENSE_HEAD_REGISTRY.register(Undefined)
    snapshot = load_snapshot(str(failure.folder / "snapshot.pth"))
    snapshot["batch"] = pack_batch(make_batch(2, images=2))
    cfg = CfgNode.load_cfg(snapshot["config"])
    cfg.MODEL.RETINANET.HEAD = "Undefined"
    found = replay({**snapshot, "config": cfg.dump()})
    assert found.module == "head" and found.inputs_finite


def test_replay_names_broken_weights(failure: Failure):
    snapshot = load_snapshot(str(failure.folder / "snapshot.pth"))
    snapshot["batch"] = pack_batch(make_batch(2, images=2))
    snapshot["model"]["head.bbox_pred.bias"][0] = math.inf
    found = replay(snapshot)
    assert found.weights == ("head.bbox_pred.bias",) and not found.finite


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"OUTPUT_DIR/trouble"):
        load_snapshot(str(tmp_path / "none.pth"))
    torch.save({"model": {}}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="no snapshot of a training step"):
        load_snapshot(str(tmp_path / "model.pth"))


def test_batch_survives_but_for_masks():
    (sample,) = make_batch(0, images=4)[3:]
    sample["instances"].gt_masks = BitMasks(torch.zeros(3, 64, 64, dtype=torch.bool))
    sample["ignore_boxes"] = Boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    sample["image_id"], sample["annotations"] = 7, [{}]
    (packed,) = pack_batch([sample])
    assert "annotations" not in packed
    (found,) = unpack_batch([packed])
    assert torch.equal(found["image"], sample["image"]) and found["image_id"] == 7
    assert torch.equal(found["ignore_boxes"].tensor, sample["ignore_boxes"].tensor)
    assert set(found["instances"].get_fields()) == {"gt_boxes", "gt_classes"}
    assert found["instances"].image_size == (64, 64)


class Loss(nn.Module):
    """Not finite, always."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 1)

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        return {"loss": self.inner.weight.sum() / 0.0}


def failing_step(cfg: CfgNode) -> TrainStep:
    model = Loss()
    return TrainStep(
        model,
        [[{"image_id": 3}]] * 9,
        sgd(model),
        bad_batches=SkipBadBatches(5, NonFiniteReporter(cfg)),
    )


def test_only_the_last_three_are_kept(tmp_path: Path):
    cfg = make_cfg(tmp_path)
    step = failing_step(cfg)
    with pytest.raises(NonFiniteLoss):
        train(step, 9)
    found = sorted(x.name for x in (Path(cfg.OUTPUT_DIR) / "trouble").iterdir())
    assert found == [f"nonfinite_iter{i}_rank0" for i in (3, 4, 5)]


def test_a_folder_that_cannot_be_written_hides_nothing(tmp_path: Path, caplog):
    cfg = make_cfg(tmp_path)
    Path(cfg.OUTPUT_DIR).write_text("a file in the way")
    step = failing_step(cfg)
    step.bad_batches.max_skipped = 0
    with pytest.raises(NonFiniteLoss, match="loss is") as caught:
        train(step, 1)
    assert "replay-step" not in str(caught.value) and "cannot write the report" in caplog.text


def test_gradient_norms_by_hand():
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(2, 1), nn.Linear(2, 1))
    for layer, value in zip(model, (3.0, math.nan, 4.0), strict=True):
        layer.weight.grad = torch.full_like(layer.weight, value)
        layer.bias.grad = torch.full_like(layer.bias, value)
    norms = gradient_norms(model, scale=2.0)
    assert [name for name, _ in norms] == ["1", "2", "0"]
    # sqrt(3) * 4 / 2 and sqrt(3) * 3 / 2
    assert [norm for _, norm in norms[1:]] == pytest.approx([3.4641, 2.5981], abs=1e-4)
