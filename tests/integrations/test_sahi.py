"""SAHI slices pictures for a Predictor, and finds what the Predictor finds."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from retinanet_ext import Predictor
from tests.helpers.parity import spread_predictions
from tests.helpers.tiny import CLASSES, tiny_cfg

HAS_SAHI = importlib.util.find_spec("sahi") is not None
needs_sahi = pytest.mark.skipif(not HAS_SAHI, reason="the package sahi is not installed")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    folder = tmp_path_factory.mktemp("run")
    cfg = tiny_cfg(folder)
    torch.manual_seed(0)
    model = build_model(cfg)
    spread_predictions(model)
    torch.save(
        {"model": model.state_dict(), "thing_classes": list(CLASSES)}, folder / "model_final.pth"
    )
    (folder / "config.yaml").write_text(cfg.dump())
    return Predictor.from_run(folder)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.repeat(np.repeat(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), 8, 0), 8, 1)


@needs_sahi
def test_a_picture_as_a_whole_gives_what_the_predictor_gives(predictor, pixels):
    from sahi.predict import get_prediction

    from retinanet_ext.integrations.sahi import RetinaNetDetectionModel

    found = get_prediction(pixels, RetinaNetDetectionModel(predictor, 0.1)).object_prediction_list
    expected = predictor(pixels, channels="RGB").above(0.1)
    assert len(found) == len(expected) > 5
    for got, box, score, name in zip(
        found, expected.boxes, expected.scores, expected.names, strict=True
    ):
        assert got.bbox.to_xyxy() == pytest.approx(box.tolist(), abs=1e-3)
        assert got.score.value == pytest.approx(score) and got.category.name == name


@needs_sahi
def test_slices_go_through_the_network_in_batches(predictor, pixels, monkeypatch):
    from sahi.predict import get_sliced_prediction

    from retinanet_ext.integrations.sahi import RetinaNetDetectionModel

    sizes = []
    detect = predictor.detector
    monkeypatch.setattr(
        type(detect), "__call__", watched(type(detect).__call__, sizes), raising=True
    )
    found = get_sliced_prediction(
        pixels,
        RetinaNetDetectionModel(predictor, 0.1),
        slice_height=64,
        slice_width=64,
        batch_size=4,
        perform_standard_pred=False,
        postprocess_type="NMS",
        verbose=0,
    ).object_prediction_list
    assert max(sizes) == 4 and sum(sizes) == 6
    right = [x.bbox.to_xyxy()[2] for x in found]
    assert len(found) > 5 and 64 < max(right) <= 128


def watched(function, sizes):
    def call(self, pictures):
        sizes.append(len(pictures))
        return function(self, pictures)

    return call


@pytest.mark.skipif(HAS_SAHI, reason="the package sahi is installed")
def test_without_sahi_the_package_is_named():
    with pytest.raises(ImportError, match="needs the package sahi: pip install sahi"):
        importlib.import_module("retinanet_ext.integrations.sahi")
