"""The raw heads are those that the detections are made of, for every way of making them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retinanet_ext import Predictor, UserError
from retinanet_ext.data.loading.bad_images import BadImageError
from retinanet_ext.errors import MissingFileError
from retinanet_ext.evaluation.analysis import assign
from retinanet_ext.inference.raw_heads import RawHeads, why_not_raw
from retinanet_ext.modeling.postprocess.decode import DenseDecoder
from retinanet_ext.report.findings import explain_misses
from tests.helpers.coco_results import tables_of
from tests.helpers.random_detector import SIZES, predictor_of, truth_of, write_pictures
from tests.helpers.tiny import CLASSES

SMALL_LIMITS = {"MODEL.RETINANET.TOPK_CANDIDATES_TEST": 30, "TEST.DETECTIONS_PER_IMAGE": 12}
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": SMALL_LIMITS,
    "quality": SMALL_LIMITS | {"MODEL.RETINANET.QUALITY_BRANCH": "iou"},
    "per class": SMALL_LIMITS | {"MODEL.RETINANET.CLS_AGNOSTIC_BBOX_REG": False},
    "class agnostic": SMALL_LIMITS | {"MODEL.RETINANET.NMS_KIND": "class_agnostic"},
    "soft": SMALL_LIMITS | {"MODEL.RETINANET.NMS_KIND": "soft"},
}


@pytest.fixture(scope="module", params=CONFIGS)
def detector(request, tmp_path_factory) -> tuple[Predictor, dict[int, str]]:
    folder = tmp_path_factory.mktemp("raw")
    return predictor_of(folder, CONFIGS[request.param]), write_pictures(folder)


def xyxy(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def test_the_first_that_nms_leaves_are_the_detections(detector):
    predictor, paths = detector
    raw_heads = RawHeads(predictor, paths, CLASSES)
    limit = raw_heads.settings.max_detections
    for image_id, path in paths.items():
        raw, found = raw_heads(image_id, range(len(CLASSES))), predictor(path)
        assert len(found) == limit < len(raw.kept_boxes)
        np.testing.assert_allclose(xyxy(raw.kept_boxes[:limit]), found.boxes, atol=1e-4)
        np.testing.assert_allclose(raw.kept_scores[:limit], found.scores, atol=1e-6)
        assert raw.kept_labels[:limit].tolist() == found.classes.tolist()


def test_kept_boxes_are_those_of_their_anchors_and_candidates(detector):
    predictor, paths = detector
    raw = RawHeads(predictor, paths, CLASSES)(2, range(len(CLASSES)))
    rows, columns = np.nonzero(raw.kept >= 0)
    places = raw.kept[rows, columns]
    assert sorted(places.tolist()) == list(range(len(raw.kept_boxes)))
    np.testing.assert_allclose(raw.boxes[rows, columns], raw.kept_boxes[places], atol=1e-4)
    assert raw.kept_labels[places].tolist() == rows.tolist()
    assert raw.is_candidate[rows, columns].all()
    assert (raw.kept_scores[places] <= raw.scores[rows, columns] + 1e-6).all()


def test_candidates_are_the_surest_of_each_level_above_the_threshold(detector):
    predictor, paths = detector
    heads = RawHeads(predictor, paths, CLASSES)
    raw = heads(3, range(len(CLASSES)))
    above = raw.probs > heads.settings.score_thresh
    assert (raw.is_candidate <= above).all() and raw.is_candidate.sum() < above.sum()
    # Anchors of one level have one area, twice as wide as the level's before.
    level = np.rint(np.log2(raw.anchors[:, 2] * raw.anchors[:, 3]))
    assert len(set(level.tolist())) == 5
    for one in set(level.tolist()):
        probs, chosen = raw.probs[:, level == one], raw.is_candidate[:, level == one]
        passed = int((probs > heads.settings.score_thresh).sum())
        assert chosen.sum() == min(heads.settings.topk_candidates, passed)
        if 0 < chosen.sum() < passed:
            assert probs[chosen].min() >= probs[~chosen].max() - 1e-6


def test_a_part_of_the_classes_in_another_order_is_the_same_part(detector):
    predictor, paths = detector
    whole = RawHeads(predictor, paths, CLASSES)(1, [0, 1, 2])
    part = RawHeads(predictor, paths, [CLASSES[2], CLASSES[0]])(1, [0, 1])
    for name in ("probs", "scores", "boxes", "is_candidate", "kept"):
        # Vectors of another length round a sigmoid in another way.
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[[2, 0]], rtol=1e-6)
    renamed = {0: 1, 1: -1, 2: 0}
    assert part.kept_labels.tolist() == [renamed[k] for k in whole.kept_labels.tolist()]


def test_anchors_lie_on_the_picture_as_on_the_network_s_input(detector):
    predictor, paths = detector
    height, width = SIZES[1]
    raw = RawHeads(predictor, paths, CLASSES)(2, [0])
    across, down = width / 64, height / round(height * 64 / width)  # MIN_SIZE_TEST is 64
    square = raw.anchors[1]  # of the ratios 0.5, 1 and 2
    np.testing.assert_allclose(square[2:], [16 * across, 16 * down], rtol=1e-5)
    np.testing.assert_allclose(raw.anchors[4][:2] - square[:2], [8 * across, 0], atol=1e-4)
    assert square[0] < 0  # not cut


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.4])
def test_every_miss_of_a_detector_has_a_reason(detector, threshold):
    predictor, paths = detector
    truth, results = truth_of(predictor, paths)
    found = assign(tables_of(truth, results), max_dets=12)
    misses = explain_misses(found, threshold, RawHeads(predictor, paths, CLASSES))
    assert misses.total == sum(misses.reasons.values()) > 20
    assert misses.reasons["unknown"] == 0
    assert all(note.startswith("Soft-NMS") for note in misses.notes)


def test_what_top_k_and_the_limit_took_is_found_without_them(tmp_path):
    paths = write_pictures(tmp_path)
    narrow = predictor_of(tmp_path, CONFIGS["plain"])
    truth, results = truth_of(narrow, paths)
    found = assign(tables_of(truth, results))
    reasons = {
        x.annotation: x.reason
        for x in explain_misses(found, 0.0, RawHeads(narrow, paths, CLASSES)).objects
    }
    assert {"topk", "above_cap", "no_anchor", "unseen"} <= set(reasons.values())
    for changed, gone in (
        ({"TEST.DETECTIONS_PER_IMAGE": 10**4}, "above_cap"),
        ({"MODEL.RETINANET.TOPK_CANDIDATES_TEST": 10**5}, "topk"),
    ):
        wide = predictor_of(tmp_path, CONFIGS["plain"] | changed)
        results = [x for i, path in paths.items() for x in wide(path).to_coco(i)]
        found = assign(tables_of(truth, results), max_dets=10**4)
        misses = explain_misses(found, 0.0, RawHeads(wide, paths, CLASSES))
        assert misses.reasons[gone] == 0
        left = {x.annotation: x.reason for x in misses.objects}
        if gone == "above_cap":
            assert any(reason == gone and x not in left for x, reason in reasons.items())
        for annotation, reason in reasons.items():
            if reason == gone == "above_cap":
                # Its box is a detection now; a neighbour may have it.
                assert left.get(annotation) in (None, "crowded", "wrong_class")
            elif reason in ("no_anchor", "unseen"):  # earlier steps do not change
                assert left.get(annotation, reason) in (reason, "wrong_class")


@pytest.mark.parametrize(
    ("bases", "all_of_it"), [([128.0, 128.0, 128.0, 128.0, 256.0], True), ([8.0] * 5, False)]
)
def test_tiny_objects_without_fitting_anchors_are_put_down_to_that(tmp_path, bases, all_of_it):
    keys = {
        "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": bases,
        "MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE": 3,
    }
    predictor, paths = predictor_of(tmp_path, keys), write_pictures(tmp_path)
    rng = np.random.default_rng(1)
    truth, results = truth_of(predictor, paths)
    stride = 8 * SIZES[0][0] / 64  # as the first level's anchors lie on the first picture
    for row in truth["annotations"]:
        row["image_id"] = 1
        x, y = stride * rng.integers(1, 6, 2)
        row["bbox"] = [x - 5.0, y - 5.0, 10.0, 10.0]
    misses = explain_misses(
        assign(tables_of(truth, results)), 0.5, RawHeads(predictor, paths, CLASSES)
    )
    assert misses.total > 50
    share = misses.reasons["no_anchor"] / misses.total
    assert share > 0.95 if all_of_it else share == 0


def test_what_cannot_be_followed_is_refused_in_a_sentence(tmp_path):
    paths = write_pictures(tmp_path)
    tiled = predictor_of(tmp_path, {"TEST.TILES.SIZE": (128, 128)})
    with pytest.raises(UserError, match=r"tiles or several views; set TEST\.TILES\.SIZE \(\)"):
        RawHeads(tiled, paths, CLASSES)
    plain = predictor_of(tmp_path, {})
    assert why_not_raw(plain) == ""
    with pytest.raises(UserError, match=r"the model has no class 'rbc'.*Did you mean 'RBC'"):
        RawHeads(plain, paths, ["rbc"])

    class OtherDecoder(DenseDecoder):
        def suppress(self, candidates):
            return candidates

    plain.model.decoder.__class__ = OtherDecoder
    assert "OtherDecoder, which makes detections in another way" in why_not_raw(plain)
    theirs = predictor_of(tmp_path, {"MODEL.META_ARCHITECTURE": "RetinaNet"})
    assert "cannot be told of RetinaNet, which" in why_not_raw(theirs)


def test_pictures_that_are_not_there_are_named(tmp_path):
    heads = RawHeads(predictor_of(tmp_path, {}), {1: str(tmp_path / "1.png")}, CLASSES)
    with pytest.raises(MissingFileError, match="image 7"):
        heads(7, [0])
    with pytest.raises(BadImageError, match=r"1\.png"):
        heads(1, [0])


def test_the_iou_that_matches_is_training_s(tmp_path):
    paths = write_pictures(tmp_path)

    def matching(**keys: Any) -> float | None:
        whole = {f"MODEL.RETINANET.{k}": v for k, v in keys.items()}
        return RawHeads(predictor_of(tmp_path, whole), paths, CLASSES).settings.matching_iou

    assert matching() == 0.5
    assert matching(IOU_THRESHOLDS=[0.3, 0.6], IOU_LABELS=[0, -1, 1]) == 0.6
    assert matching(ASSIGNER="ATSSAssigner") is None
