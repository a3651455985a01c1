"""A softmax over classes and background as MODEL.RETINANET.CLASSIFIER, and the rules for scores."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.errors import InputError
from retinanet_ext.modeling import OHEM, DenseDecoder, RetinaNetHead
from retinanet_ext.modeling.classifier import class_logits
from retinanet_ext.modeling.criteria.quality_branch import objectness_loss
from retinanet_ext.structures import DenseTargets, HeadOutputs

NUM_CLASSES = 3


def decoder(**kwargs) -> DenseDecoder:
    transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    return DenseDecoder(box2box_transform=transform, num_classes=NUM_CLASSES, **kwargs)


def test_the_sigmoids_of_class_logits_are_the_softmax():
    outputs = torch.randn(2, 2 * (NUM_CLASSES + 1), 3, 4) * 5
    found = class_logits([outputs], NUM_CLASSES, "softmax")[0].sigmoid()
    probs = outputs.unflatten(1, (2, -1)).softmax(dim=2)[:, :, :-1].flatten(1, 2)
    torch.testing.assert_close(found, probs, rtol=1e-4, atol=1e-6)


def test_a_sure_class_has_the_score_1():
    outputs = torch.tensor([300.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1)
    assert class_logits([outputs], NUM_CLASSES, "softmax")[0].sigmoid().flatten()[0] == 1


def test_the_decoder_gives_the_softmaxs_scores():
    outputs = torch.tensor([1.0, 3.0, 0.0, 2.0]).view(1, 4, 1, 1)
    anchors = [Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0]]))]
    heads = HeadOutputs([outputs], [torch.zeros(1, 4, 1, 1)])
    found = decoder(classifier="softmax", score_thresh=0.0)(anchors, heads, [(20, 20)])[0]
    probs = outputs.flatten().softmax(0)
    assert found.pred_classes.tolist() == [1, 0, 2]
    torch.testing.assert_close(found.scores, probs[[1, 0, 2]])


@pytest.mark.parametrize("by", ["class", "score"])
@pytest.mark.parametrize(("rule", "score"), [("sqrt_pq", math.sqrt(0.2)), ("pq", 0.2), ("p", 0.4)])
def test_score_rules(rule, score, by):
    p, q = torch.tensor(0.4).logit(), torch.tensor(0.5).logit()
    logits = torch.tensor([p, -50.0, -50.0]).view(1, 3, 1, 1)
    heads = HeadOutputs(
        [logits], [torch.zeros(1, 4, 1, 1)], named={"quality": [q.view(1, 1, 1, 1)]}
    )
    anchors = [Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0]]))]
    found = decoder(score_rule=rule, candidates_by=by)(anchors, heads, [(20, 20)])[0]
    assert found.scores.tolist() == pytest.approx([score])


def test_a_fresh_softmax_head_gives_all_classes_together_the_prior():
    from detectron2.layers import ShapeSpec

    head = RetinaNetHead(
        input_shape=[ShapeSpec(channels=4, stride=8)],
        num_classes=NUM_CLASSES,
        num_anchors=2,
        conv_dims=[4],
        prior_prob=0.02,
        classifier="softmax",
    )
    logits, deltas = head([torch.zeros(1, 4, 2, 2)])
    assert logits[0].shape == (1, 8, 2, 2) and deltas[0].shape == (1, 8, 2, 2)
    objects = class_logits(logits, NUM_CLASSES, "softmax")[0].sigmoid().unflatten(1, (2, -1))
    torch.testing.assert_close(objects.sum(dim=2), torch.full((1, 2, 2, 2), 0.02))


def test_mining_by_softmax_takes_the_hardest_of_each_image():
    # One object each; of the background, the images' hardest are anchors 3 and 1.
    labels = torch.tensor([[0, 2, 2, 2], [1, 2, 2, 2]])
    wrong = torch.tensor([[0.0, 1.0, 0.0, 4.0], [0.0, 3.0, 2.0, 0.0]])
    logits = torch.zeros(2, 3, 2, 2)
    logits[:, 0] = wrong.view(2, 2, 2)
    loss = OHEM(
        mode="ratio", batch_size=0, nms_thresh=1.0, neg_pos_ratio=1.0, min_negatives=0,
        classifier="softmax",
    )  # fmt: skip
    targets = DenseTargets(labels, torch.zeros(2, 4, 4), 2)
    assert loss.select([logits], targets).tolist() == [[0, -1, -1, 2], [1, 2, -1, -1]]
    expected = sum(
        -logits[i].flatten(1).log_softmax(0)[labels[i, j], j]
        for i, j in ((0, 0), (0, 3), (1, 0), (1, 1))
    )
    torch.testing.assert_close(loss([logits], targets), expected)


def test_objectness_is_learned_by_all_anchors_that_are_not_ignored():
    labels = torch.tensor([[0, -1, 2, 1]])
    quality = torch.tensor([[1.0, 5.0, -2.0, 0.5]]).view(1, 1, 2, 2)
    targets = DenseTargets(labels, torch.zeros(1, 4, 4), 2)
    expected = -(
        torch.tensor(1.0).sigmoid().log()
        + (1 - torch.tensor(-2.0).sigmoid()).log()
        + torch.tensor(0.5).sigmoid().log()
    )
    torch.testing.assert_close(objectness_loss([quality], targets), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"CLASSIFIER": "softmax"}, r"CLASSIFIER is softmax.*FocalLoss.*OHEM.*SoftmaxCE"),
        ({"CLS_LOSS": "SoftmaxCE"}, r"CLASSIFIER is sigmoid.*SoftmaxCE"),
        ({"SCORE_RULE": "pq"}, r"SCORE_RULE is 'pq'.*QUALITY_BRANCH"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message):
    cfg = get_cfg()
    load_config_file(cfg, "quickstart.yaml")
    cfg.MODEL.RETINANET.merge_from_list([x for pair in settings.items() for x in pair])
    with pytest.raises(InputError, match=message):
        validate_cfg(cfg)
