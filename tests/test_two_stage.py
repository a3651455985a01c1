"""Detectron2's two-stage detectors in our training, evaluation, report and prediction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

import train_net
from retinanet_ext import Predictor, UserError
from retinanet_ext.cli import main
from retinanet_ext.data.datasets.register import register_builtin_datasets
from tests.helpers.reports import Page
from tests.helpers.tiny import IMAGE_SIZE, restored_loggers, write_dataset

pytestmark = pytest.mark.slow

# The shipped recipes for a tiny data set, with tiny widths.
SMALL = (
    *("MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.RESNETS.DEPTH", "18"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.FPN.OUT_CHANNELS", "16"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16", "MODEL.ROI_HEADS.NUM_CLASSES", "3"),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", "100", "MODEL.RPN.PRE_NMS_TOPK_TEST", "100"),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", "50", "MODEL.RPN.POST_NMS_TOPK_TEST", "50"),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "TEST.DETECTIONS_PER_IMAGE", "20"),
    *("DATASETS.TRAIN", "('bccd_train',)", "DATASETS.TEST", "('bccd_val',)"),
    *("DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "1"),
    *("SOLVER.BASE_LR", "1e-4", "SOLVER.STEPS", "()"),
    *("INPUT.MIN_SIZE_TRAIN", f"({IMAGE_SIZE},)", "INPUT.MIN_SIZE_TEST", str(IMAGE_SIZE)),
    *("SEED", "1"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tiny data set with rectangles as masks."""
    folder = write_dataset(tmp_path_factory.mktemp("two_stage"), num_train=4, num_val=2)
    for path in (folder / "bccd" / "annotations").glob("*.json"):
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            x, y, w, h = annotation["bbox"]
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        path.write_text(json.dumps(content))
    yield folder
    register_builtin_datasets()


def train(config: str, root: Path, output: Path, *opts: str) -> dict[str, float]:
    """Train by the script; the results of the evaluation."""
    words = ("--config-file", config, "--data-root", str(root), "--num-gpus", "0")
    with restored_loggers():
        train_net.run([*words, *SMALL, *opts, "OUTPUT_DIR", str(output)])
    return json.loads((output / "evaluations.json").read_text())[-1]["metrics"]


@pytest.fixture(scope="module")
def mask_run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("mask_rcnn") / "output"
    train("mask_rcnn_R_50_FPN_1x.yaml", root, output)
    return output


@pytest.mark.parametrize("proposals", ["", "_dense_rpn"], ids=["rpn", "dense_rpn"])
@pytest.mark.parametrize(
    ("name", "tasks"),
    [("faster_rcnn", {"bbox"}), ("mask_rcnn", {"bbox", "segm"}), ("rpn", {"box_proposals"})],
)
def test_recipes_train_and_are_evaluated_by_their_tasks(
    name: str, tasks: set[str], proposals: str, root: Path, tmp_path: Path
):
    metrics = train(
        f"{name}_R_50_FPN_1x{proposals}.yaml", root, tmp_path / "out", "TEST.REPORT", "False"
    )
    assert {key.split("/")[0] for key in metrics} == tasks
    for task in tasks:
        wanted = {"AR@100", "AR@1000"} if task == "box_proposals" else {"AP", "AP50", "AP75"}
        assert wanted <= {key.split("/")[1] for key in metrics if key.startswith(task)}
    rows = [json.loads(x) for x in (tmp_path / "out" / "metrics.json").read_text().splitlines()]
    losses = {key for row in rows for key in row if key.startswith("loss_")}
    assert {"loss_rpn_cls", "loss_rpn_loc"} <= losses
    assert ("loss_mask" in losses) == (name == "mask_rcnn")


def test_a_report_of_mask_rcnn_tells_the_ap_of_masks(mask_run: Path, root: Path):
    metrics = json.loads((mask_run / "evaluations.json").read_text())[-1]["metrics"]
    content = json.loads((mask_run / "inference" / "report.json").read_text())
    assert content["masks"] == {x: metrics[f"segm/{x}"] for x in ("AP", "AP50", "AP75")}
    assert "AP of masks" in Page(mask_run / "inference" / "report.html").text
    assert main(["report", str(mask_run), "--data-root", str(root)]) == 0


def test_predictions_of_mask_rcnn_have_masks(mask_run: Path, root: Path, tmp_path: Path):
    found = Predictor.from_run(mask_run)(root / "bccd" / "val" / "001.png")
    assert len(found) and found.masks.shape == (len(found), IMAGE_SIZE, IMAGE_SIZE)
    out = tmp_path / "found"
    words = ["--output", str(out), "--draw", "--format", "coco"]
    assert main(["predict", str(mask_run), str(root / "bccd" / "val"), *words]) == 0
    results = json.loads((out / "coco_instances_results.json").read_text())
    assert len(results) >= len(found)
    for row in results:
        assert coco_mask.decode(row["segmentation"]).shape == (IMAGE_SIZE, IMAGE_SIZE)
    np.testing.assert_array_equal(
        coco_mask.decode(found.to_coco(1)[0]["segmentation"]), found.masks[0]
    )


def test_a_proposal_network_has_no_report_and_no_predictions(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "output"
    train("rpn_R_50_FPN_1x.yaml", root, output)
    assert not list(output.rglob("report.html"))
    assert main(["report", str(output)]) == 2
    assert "which gives no detections to report on" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"ProposalNetwork, which gives proposals"):
        Predictor.from_run(output)


def test_training_of_masks_stops_where_there_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = write_dataset(tmp_path / "boxes", num_train=2, num_val=1)
    with pytest.raises(SystemExit) as stopped:
        train("mask_rcnn_R_50_FPN_1x.yaml", root, tmp_path / "output")
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert "MODEL.MASK_ON is True, but" in said.out + said.err
