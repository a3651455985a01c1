"""CenterNet as an exported file: PyTorch's peaks, with nothing of the project where it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, build_model

from retinanet_ext import Predictor, get_cfg, load_config_file
from retinanet_ext.errors import InputError
from retinanet_ext.export import ExportOptions, export
from retinanet_ext.export.compare import compare_sets
from retinanet_ext.export.reference import Reference, instances_of, plain_predictor
from tests.helpers.exported import require_onnx, write_pictures
from tests.projects.test_centernet import QUICKSTART, TINY

pytestmark = pytest.mark.usefixtures("centernet")

SIZES = [(2, 64, 96), (1, 64, 96), (3, 200, 133), (1, 33, 47), (3, 96, 64)]
NMS = {"decoded": "per_class", "nms": "none", "nms-per_class": "per_class"}


class Trained:
    """A tiny detector with random peaks, and files of it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.pictures = write_pictures(folder / "pictures")
        torch.manual_seed(0)
        model: Any = build_model(self.cfg())
        # As it begins, all cells are alike; sizes of a few cells, so that boxes overlap.
        for branch, std in ((model.head.heat, 0.6), (model.head.size, 1.0)):
            torch.nn.init.normal_(branch[-1].weight, std=std)
        torch.nn.init.constant_(model.head.size[-1].bias, 4.0)
        torch.save({"model": model.state_dict()}, folder / "w.pth")
        self._made: dict[str, Path] = {}

    def cfg(self, nms: str = "none") -> CfgNode:
        cfg = get_cfg()
        load_config_file(cfg, QUICKSTART)
        cfg.merge_from_list([x for pair in TINY.items() for x in pair])
        cfg.MODEL.CENTERNET.NMS_KIND = nms
        cfg.MODEL.WEIGHTS = str(self.folder / "w.pth")
        cfg.TEST.DETECTIONS_PER_IMAGE = 60
        return cfg

    def export(self, name: str, **options: Any) -> Path:
        """Folder of the file; of each of NMS there is one."""
        require_onnx()
        if name not in self._made:
            path = self.folder / name
            options = {"exporter": "torchscript", "pictures": self.pictures, **options}
            head = name.partition("-")[0]
            export(
                self.cfg(NMS[name]),
                ExportOptions(str(path), head=head, **options),
                say=lambda text: None,
            )
            self._made[name] = path
        return self._made[name]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, centernet) -> Trained:
    return Trained(tmp_path_factory.mktemp("centernet"))


@pytest.mark.parametrize("name", NMS)
def test_any_size_and_batch_is_that_of_pytorch(trained: Trained, name: str):
    folder = trained.export(name)
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    names = [x.name for x in session.get_outputs()]
    reference = Reference(plain_predictor(trained.cfg(NMS[name])))
    for batch, height, width in SIZES:
        images = np.random.default_rng(height).uniform(0, 255, (batch, 3, height, width))
        images = images.astype(np.float32)
        outputs = dict(zip(names, session.run(names, {"images": images}), strict=True))
        assert outputs["boxes"].shape == (batch, 60, 4)
        decoded = name == "decoded"
        expected = reference.candidates(images) if decoded else reference.detections(images)
        got = instances_of(outputs, images.shape[2:])
        found = compare_sets(expected, got, edge=0.05, most=60)
        assert found.count > 20 and found.missing == 0
        if not decoded:
            assert outputs["count"].tolist() == [len(x) for x in got]
            assert (outputs["classes"][outputs["scores"] == 0] == -1).all()


def test_the_file_holds_standard_operators_only_and_says_what_it_is(trained: Trained):
    folder = trained.export("nms")
    import onnx

    model = onnx.load(str(folder / "model.onnx"))
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    assert "NonMaxSuppression" not in {node.op_type for node in model.graph.node}
    meta = json.loads((folder / "model.json").read_text())
    assert meta["decode"]["boxes_from"] == "peaks" and "anchors" not in meta
    content = json.loads((folder / "parity.json").read_text())
    details = [x["detail"] for x in content["checks"] if x["what"].startswith("boxes of")]
    for batch in (1, 3):
        assert len([x for x in details if x.startswith(f"batch {batch} ")]) == 3
    assert content["passed"] and sum(x["boxes"] for x in content["checks"]) > 100


@pytest.mark.parametrize("name", NMS)
def test_a_predictor_of_the_file_finds_what_the_run_finds(trained: Trained, name: str):
    folder = trained.export(name)
    run = plain_predictor(trained.cfg(NMS[name]))
    # Where the file is used, nobody knows CenterNet.
    entry = META_ARCH_REGISTRY._obj_map.pop("CenterNet")
    try:
        exported = Predictor.from_export(folder)
        found = [exported(path).instances for path in trained.pictures]
    finally:
        META_ARCH_REGISTRY._obj_map["CenterNet"] = entry
    expected = [run(path).instances for path in trained.pictures]
    same = compare_sets(expected, found, edge=0.05, most=60)
    assert same.count > 60 and same.missing == 0


def test_the_file_runs_without_this_package(trained: Trained):
    folder = trained.export("decoded")
    script = folder / "run_onnxruntime.py"
    done = subprocess.run(
        [sys.executable, str(script), trained.pictures[0], "--check"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[0])["detections"]
    expected = plain_predictor(trained.cfg("per_class"))(trained.pictures[0]).instances
    assert len(found) == len(expected) > 5
    scores = [x["score"] for x in found]
    np.testing.assert_allclose(scores, expected.scores.numpy(), atol=1e-5)


def test_raw_outputs_are_refused_before_anything_is_written(trained: Trained, tmp_path: Path):
    require_onnx()
    with pytest.raises(InputError, match=r"--head raw is not for CenterNet.*decoded or nms"):
        export(trained.cfg(), ExportOptions(str(tmp_path / "out"), head="raw"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_exporter_of_programs_makes_the_same(trained: Trained, tmp_path: Path):
    require_onnx()
    pytest.importorskip("onnxscript", reason="needs onnxscript, of the extra onnx")
    options = ExportOptions(str(tmp_path / "out"), pictures=trained.pictures, exporter="dynamo")
    checks = export(trained.cfg("per_class"), options, say=lambda text: None)
    assert all(x.passed for x in checks) and sum(x.boxes for x in checks) > 100
