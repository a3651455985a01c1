"""Classes matched by name; the references copy one row after the other."""

import logging
import pickle

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model

from retinanet_ext.engine import RetinaNetTrainer, evaluate
from retinanet_ext.engine import trainer as trainer_module
from retinanet_ext.engine.checkpoint.checkpointer import SafeCheckpointer
from retinanet_ext.engine.checkpoint.fine_tune import match_classes
from retinanet_ext.engine.dry_run import dry_run
from retinanet_ext.modeling.heads.build import build_dense_head
from retinanet_ext.weights.reading import WeightsError, save_weights
from tests.helpers.tiny import CLASSES

ANCHORS = 3
COCO = MetadataCatalog.get("coco_2017_train").thing_classes


def build(cfg, num_classes, agnostic=True, anchors=ANCHORS):
    """A head alone, which is quick to build, as the part of a detector."""
    cfg = cfg.clone()
    cfg.MODEL.RETINANET.NUM_CLASSES = num_classes
    cfg.MODEL.RETINANET.CLS_AGNOSTIC_BBOX_REG = agnostic
    model = torch.nn.Module()
    model.head = build_dense_head(cfg, [ShapeSpec(channels=32, stride=8)], [anchors])
    model.num_classes = num_classes
    return model


def trained(cfg, num_classes, **options):
    """State of a model with random weights everywhere."""
    state = build(cfg, num_classes, **options).state_dict()
    return {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in state.items()}


def row(layer, anchor, index, num_classes):
    """Rows of a class: one of cls_score, four of bbox_pred."""
    if layer == "cls_score":
        return [anchor * num_classes + index]
    return [(anchor * num_classes + index) * 4 + i for i in range(4)]


@pytest.mark.parametrize("agnostic", [True, False])
@pytest.mark.parametrize(
    "old, new",
    [
        (["a", "b", "c", "d"], ["c", "x", "a"]),
        (["a", "b"], ["b", "x", "y", "a"]),
        (["a", "b"], ["b", "a"]),
        ([" A", "b"], ["a", "B ", "c"]),
    ],
)
def test_rows_of_equal_names_are_copied_and_others_are_as_built(cfg, old, new, agnostic):
    weights = trained(cfg, len(old), agnostic=agnostic)
    model = build(cfg, len(new), agnostic=agnostic)
    transfer, merged = match_classes(model, weights, old, new)
    keys = [name.strip().lower() for name in old]
    found = [name.strip().lower() in keys for name in new]
    assert transfer.copied == tuple(n for n, f in zip(new, found, strict=True) if f)
    assert transfer.new == tuple(n for n, f in zip(new, found, strict=True) if not f)
    layers = ["cls_score"] if agnostic else ["cls_score", "bbox_pred"]
    kinds = ("weight", "bias")
    assert set(merged) == {f"head.{layer}.{kind}" for layer in layers for kind in kinds}
    for layer in layers:
        for name in (f"head.{layer}.weight", f"head.{layer}.bias"):
            built = model.state_dict()[name]
            assert merged[name].shape == built.shape
            for anchor in range(ANCHORS):
                for index, label in enumerate(new):
                    ours = merged[name][row(layer, anchor, index, len(new))]
                    expected = built[row(layer, anchor, index, len(new))]
                    if label.strip().lower() in keys:
                        there = row(layer, anchor, keys.index(label.strip().lower()), len(old))
                        expected = weights[name][there]
                    assert torch.equal(ours, expected)


def test_the_background_of_a_softmax_is_copied_with_the_classes(cfg):
    cfg = cfg.clone()
    cfg.MODEL.RETINANET.CLASSIFIER = "softmax"
    weights, model = trained(cfg, 3), build(cfg, 2)
    transfer, merged = match_classes(model, weights, ["a", "b", "c"], ["c", "x"])
    assert (transfer.copied, transfer.new) == (("c",), ("x",))
    for kind in ("weight", "bias"):
        name = f"head.cls_score.{kind}"
        old = weights[name].unflatten(0, (ANCHORS, 4))
        built = model.state_dict()[name].unflatten(0, (ANCHORS, 3))
        found = merged[name].unflatten(0, (ANCHORS, 3))
        torch.testing.assert_close(found[:, [0, 2]], old[:, [2, 3]])
        torch.testing.assert_close(found[:, 1], built[:, 1])


def test_new_classes_start_from_the_prior(cfg):
    transfer, merged = match_classes(build(cfg, 2), trained(cfg, 2), ["a", "b"], ["x", "y"])
    assert transfer.copied == () and transfer.left_out == ("a", "b")
    prior = cfg.MODEL.RETINANET.PRIOR_PROB
    torch.testing.assert_close(
        merged["head.cls_score.bias"].sigmoid(), torch.full((2 * ANCHORS,), prior)
    )


def test_equal_classes_are_loaded_as_they_are(cfg):
    model, weights = build(cfg, 2), trained(cfg, 2)
    assert match_classes(model, weights, ["a", "b"], ["A", "b"]) is None
    assert match_classes(model, weights, None, ["x", "y"]) is None  # may be the same
    assert match_classes(model, weights, ["a"], ["x", "y"]) is None  # not the names of these rows


def test_unnamed_classes_are_not_guessed(cfg):
    transfer, merged = match_classes(build(cfg, 2), trained(cfg, 5), None, ["a", "b"])
    assert transfer.copied == () and transfer.left_out is None
    assert len(merged["head.cls_score.weight"]) == 2 * ANCHORS


def test_other_anchors_make_every_class_new(cfg):
    weights = trained(cfg, 2, anchors=1)
    transfer, merged = match_classes(build(cfg, 3), weights, ["a", "b"], ["a", "b", "c"])
    assert transfer.copied == () and transfer.new == ("a", "b", "c")
    assert len(merged["head.cls_score.weight"]) == 3 * ANCHORS


def test_other_channels_make_every_class_new(cfg):
    weights = trained(cfg, 2)
    cfg.MODEL.RETINANET.HEAD_WIDTH = 16
    assert match_classes(build(cfg, 2), weights, ["b", "a"], ["a", "b"])[0].new == ("a", "b")


def test_weights_of_a_backbone_have_no_classes(cfg):
    weights = {"backbone.fpn_lateral3.weight": torch.ones(2), "stem.conv1.weight": torch.ones(2)}
    assert match_classes(build(cfg, 3), weights, None, ["a", "b", "c"]) is None


def test_unnamed_coco_models_are_known(cfg, tmp_path):
    weights = trained(cfg, len(COCO))
    path = tmp_path / "model_final.pkl"
    zoo = {"model": {k: v.numpy() for k, v in weights.items()}, "__author__": "a zoo"}
    path.write_bytes(pickle.dumps(zoo))
    model = build(cfg, 3)
    checkpointer = SafeCheckpointer(model)
    checkpointer.thing_classes = ["dog", "unicorn", "person"]
    checkpointer.load(str(path))
    ours, theirs = model.head.cls_score.weight, weights["head.cls_score.weight"]
    for anchor in range(ANCHORS):
        assert torch.equal(ours[anchor * 3], theirs[anchor * 80 + COCO.index("dog")])
        assert torch.equal(ours[anchor * 3 + 2], theirs[anchor * 80 + COCO.index("person")])
    assert torch.equal(model.head.bbox_pred.weight, weights["head.bbox_pred.weight"])


@pytest.fixture
def weights_file(cfg, tmp_path):
    """Weights of a model with the classes WBC, other, and RBC."""
    path = tmp_path / "w.pth"
    state = build_model(cfg).state_dict()
    state = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in state.items()}
    save_weights(path, state, ["WBC", "other", "RBC"])
    cfg.MODEL.WEIGHTS = str(path)
    return path


def log_lines(caplog, start):
    return [message for message in caplog.messages if message.startswith(start)]


def test_fine_tuning_says_in_one_line_what_it_starts_from(cfg, weights_file, caplog):
    trainer = RetinaNetTrainer(cfg)
    built = trainer.model.head.cls_score.weight.detach().clone()
    trainer.resume_or_load(resume=False)
    (line,) = log_lines(caplog, "loaded")
    total = len(list(trainer.model.parameters()))
    assert line == (
        f"loaded {total} of {total} parameter tensors from {weights_file}; classes: copied 2 "
        "(RBC, WBC) by name, new 1 (Platelets), left out 1 (other)"
    )
    theirs = torch.load(weights_file)["model"]
    ours = trainer.model.state_dict()
    for name, value in ours.items():
        if "cls_score" not in name:
            assert torch.equal(value, theirs[name]), name
    score, old = ours["head.cls_score.weight"], theirs["head.cls_score.weight"]
    for anchor in range(ANCHORS):
        assert torch.equal(score[anchor * 3], built[anchor * 3])
        assert torch.equal(score[anchor * 3 + 1], old[anchor * 3 + 2])
        assert torch.equal(score[anchor * 3 + 2], old[anchor * 3])
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_layer_without_any_known_class_is_called_new(cfg, tmp_path, caplog):
    save_weights(tmp_path / "w.pth", trained(cfg, 2), ["x", "y"])
    model = build(cfg, 3)
    checkpointer = SafeCheckpointer(model)
    checkpointer.thing_classes = CLASSES
    checkpointer.load(str(tmp_path / "w.pth"))
    (line,) = log_lines(caplog, "loaded")
    total = len(list(model.parameters()))
    assert line.startswith(f"loaded {total - 2} of {total} parameter tensors")
    assert "; new: head.cls_score; classes: copied 0 by name, new 3 (Platelets, RBC, WBC)" in line


def test_a_classifier_alone_with_other_classes_fits_nothing(cfg, tmp_path):
    state = trained(cfg, 2)
    save_weights(tmp_path / "w.pth", {k: v for k, v in state.items() if "cls_score" in k})
    checkpointer = SafeCheckpointer(build(cfg, 3))
    checkpointer.thing_classes = CLASSES
    with pytest.raises(WeightsError, match="no weights that fit"):
        checkpointer.load(str(tmp_path / "w.pth"))


def test_checkpoints_hold_their_classes_and_resuming_leaves_rows_alone(cfg):
    cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST = 1, ()
    trainer = RetinaNetTrainer(cfg)
    trainer.train()
    content = torch.load(f"{cfg.OUTPUT_DIR}/model_final.pth", weights_only=True)
    assert content["thing_classes"] == list(CLASSES)
    again = RetinaNetTrainer(cfg)
    again.checkpointer.thing_classes = [f" {name.upper()}" for name in CLASSES]
    again.resume_or_load(resume=True)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)


@pytest.mark.parametrize(
    "names, words",
    [
        (CLASSES[::-1], "the order was Platelets, RBC, WBC and is WBC, RBC, Platelets"),
        (("Platelets", "RBC", "x"), "new: x; no longer there: WBC"),
        ((*CLASSES, "x"), r"\(new: x\)"),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_other_classes_are_not_resumed_but_named(cfg, names, words, dry, monkeypatch):
    cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST = 1, ()
    RetinaNetTrainer(cfg).train()
    monkeypatch.setattr(trainer_module, "class_names_of", lambda _: names)
    cfg.MODEL.RETINANET.NUM_CLASSES = len(names)
    with pytest.raises(WeightsError, match=rf"same classes.*{words}.*MODEL\.WEIGHTS '.*final"):
        if dry:
            dry_run(cfg, resume=True)
        else:
            RetinaNetTrainer(cfg).resume_or_load(resume=True)


def test_a_checkpoint_of_another_model_is_named_with_its_shapes(cfg):
    cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST = 1, ()
    RetinaNetTrainer(cfg).train()
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    with pytest.raises(WeightsError, match=r"another model: .*\(.*32.*\) in it and .*16.*more"):
        RetinaNetTrainer(cfg).resume_or_load(resume=True)


def test_an_evaluation_of_the_last_checkpoint_matches_its_classes_by_name(cfg, tmp_path):
    state = trained(cfg, 3)
    torch.save({"model": state, "thing_classes": list(CLASSES)}, tmp_path / "model_final.pth")
    model = build(cfg, 3)
    evaluated = SafeCheckpointer(
        model, str(tmp_path), thing_classes=CLASSES[::-1], allow_new_classes=False
    )
    evaluated.resume_or_load("", resume=True)
    score, name = model.head.cls_score, "head.cls_score.weight"
    assert torch.equal(score.weight[0], state[name][2])
    assert torch.equal(score.weight[2], state[name][0])


def test_frozen_random_rows_are_refused(cfg, weights_file):
    cfg.MODEL.RETINANET.FREEZE = ["cls_score"]
    with pytest.raises(WeightsError, match=r"FREEZE holds cls_score.*new 1 \(Platelets\)"):
        RetinaNetTrainer(cfg).resume_or_load(resume=False)


def rename(cfg, names):
    """A copy of the test dataset whose classes have other names."""
    name = f"renamed_{'_'.join(names)}"
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, lambda: [])
        MetadataCatalog.get(name).thing_classes = list(names)
    cfg.DATASETS.TEST = (name,)


def test_evaluation_matches_names_but_never_uses_random_rows(
    cfg, weights_file, monkeypatch, caplog
):
    seen = []
    monkeypatch.setattr(RetinaNetTrainer, "test", lambda cfg, model: seen.append(model) or {})
    rename(cfg, ["other", "RBC", "WBC"])
    evaluate(cfg)
    theirs = torch.load(weights_file)["model"]["head.cls_score.bias"]
    assert torch.equal(seen[0].head.cls_score.bias, theirs.view(3, 3)[:, [1, 2, 0]].flatten())

    rename(cfg, ["1", "2", "3"])  # as many: other names of the same things, for all we know
    evaluate(cfg)
    assert torch.equal(seen[1].head.cls_score.bias, theirs)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "other class names" in warning

    cfg.MODEL.RETINANET.NUM_CLASSES = 2
    rename(cfg, ["RBC", "x"])
    with pytest.raises(WeightsError, match=r"w\.pth' does not detect all classes.*new 1 \(x\)"):
        evaluate(cfg)
