"""Detectors of distances to the edges and of centerness (FCOS) in a file, as in PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.structures import Boxes, Instances

from retinanet_ext import Predictor
from retinanet_ext.export.compare import compare_sets
from retinanet_ext.inference.exported import cfg_of_export
from retinanet_ext.inference.exported.engines import open_engine
from retinanet_ext.inference.exported.sidecar import Sidecar
from retinanet_ext.inference.exported.standalone import decode, preprocess
from tests.helpers.exported import export_run, require_onnx, write_pictures
from tests.helpers.run_folder import write_run

NODE = "MODEL.RETINANET"
OPTS = (
    *("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[1.0]]),
    *("MODEL.ANCHOR_GENERATOR.OFFSET", 0.5),
    *("MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES", [8.0, 16.0, 32.0, 64.0, 128.0]),
    *(f"{NODE}.ASSIGNER", "PointAssigner", f"{NODE}.BOX_CODER", "ltrb"),
    *(f"{NODE}.QUALITY_BRANCH", "centerness", f"{NODE}.CANDIDATES_BY", "score"),
    *(f"{NODE}.BBOX_REG_LOSS_TYPE", "giou"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("fcos") / "run", opts=OPTS)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[str]:
    return write_pictures(tmp_path_factory.mktemp("fcos") / "pictures")


@pytest.mark.parametrize("head", ["raw", "nms"])
def test_the_file_finds_what_the_run_finds(run, pictures, tmp_path, head):
    require_onnx()
    # The verification compares at three sizes and two batches, and raises where they differ.
    folder = export_run(run, tmp_path / "out", head=head, pictures=pictures)
    checks = json.loads((folder / "parity.json").read_text())["checks"]
    assert sum(x["boxes"] for x in checks) > 100
    cfg = cfg_of_export(folder).MODEL.RETINANET
    assert (cfg.BOX_CODER, cfg.QUALITY_BRANCH, cfg.CANDIDATES_BY) == ("ltrb", "centerness", "score")
    predictor, sidecar = Predictor.from_run(run), Sidecar.read(folder)
    engine, meta = open_engine(sidecar), sidecar.meta
    for path in pictures:
        pixels = preprocess.read(path, meta)
        small = preprocess.resize(pixels, meta)
        found = decode.detections(engine(preprocess.batch([small], meta)), 0, meta)
        found = decode.in_picture(found, small.shape[:2], pixels.shape[:2])
        boxes, scores, classes = (torch.from_numpy(x) for x in found)
        ours = Instances(
            pixels.shape[:2], pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes
        )
        compared = compare_sets([predictor(path).instances], [ours], edge=0.05, most=100)
        assert compared.count > 20 and compared.missing == 0
