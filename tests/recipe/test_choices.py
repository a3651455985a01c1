"""Each choice follows from facts about the data and the machine, whatever they are."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from retinanet_ext import get_cfg, validate_cfg
from retinanet_ext.recipe.augment import choose_augmentation, choose_flips, why_no_flip
from retinanet_ext.recipe.draft import Draft
from retinanet_ext.recipe.facts import DataFacts, Machine
from retinanet_ext.recipe.network import batch_norm, choose_network, kind_of
from retinanet_ext.recipe.pictures import SMALL_OBJECT, choose_size, smaller
from retinanet_ext.recipe.steps import OF_MEMORY, PER_PIXEL, choose_batch, choose_optimizer
from retinanet_ext.weights.demo import DEMO_FILE, DEMO_FOLDER
from retinanet_ext.weights.reading import read_torch

PRESETS = ("fast", "balanced", "accurate")


def facts(
    side: float = 0.1, size: tuple[int, int] = (640, 480), images: int = 300, **others: object
) -> DataFacts:
    """Objects of one size, as a share of the pictures' short side."""
    return DataFacts(
        images=images,
        val_images=60,
        class_names=("cat", "dog"),
        sides=np.full(100, side),
        sizes=np.full((images, 2), size, dtype=float),
        **others,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("device", "weights", "kind"),
    [
        ("cuda", {"coco", "imagenet", "lite0"}, "coco"),
        ("cuda", {"imagenet", "lite0"}, "imagenet"),
        ("cuda", {"lite0", "demo"}, "lite0"),
        ("cuda", {"demo"}, "demo"),
        ("cuda", set(), "scratch"),
        ("cpu", {"coco", "lite0"}, "lite0"),
        ("cpu", {"demo", "lite0"}, "lite0"),
        ("cpu", {"coco", "demo"}, "demo"),
        ("cpu", {"coco", "imagenet"}, "scratch"),
        ("cpu", set(), "scratch"),
    ],
)
def test_the_network_is_the_best_that_is_at_hand(device: str, weights: set[str], kind: str):
    assert kind_of(Machine(device, weights=frozenset(weights))) == kind


def test_without_other_weights_all_of_the_demo_but_its_classes_is_the_start():
    draft = Draft(get_cfg(), ())
    choice = choose_network(Machine("cpu", weights=frozenset({"demo"})), "balanced")
    draft.take(choice)
    assert draft.cfg.MODEL.WEIGHTS == "shipped://demo" and "pip install" in choice.reason
    draft.cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        ours = {k: v.shape for k, v in build_model(draft.cfg).state_dict().items()}
    theirs = {k: v.shape for k, v in read_torch(str(DEMO_FOLDER / DEMO_FILE))["model"].items()}
    assert ours.keys() == theirs.keys()
    differ = {k for k, shape in ours.items() if theirs[k] != shape}
    assert differ == {"head.cls_score.weight", "head.cls_score.bias"}


@pytest.mark.parametrize("at_hand", ["coco", "imagenet", "lite0", "demo", ""])
@pytest.mark.parametrize("given, told", [("", "random weights"), ("own.pth", "weights own.pth")])
def test_weights_of_the_user_are_those_that_the_table_tells(at_hand: str, given: str, told: str):
    machine = Machine(
        "cuda" if at_hand in ("coco", "imagenet") else "cpu", weights=frozenset({at_hand} - {""})
    )
    draft = Draft(get_cfg(), ["MODEL.WEIGHTS"])
    draft.cfg.MODEL.WEIGHTS = given
    draft.take(choose_network(machine, "balanced", given))
    (row,) = draft.choices
    assert row.value.endswith(f", {told}") and "yours: MODEL.WEIGHTS" in row.reason
    kept = draft.cfg.MODEL.WEIGHTS
    assert kept == given


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("weights", ["coco", "imagenet", "demo", ""])
def test_every_network_makes_a_valid_config(preset: str, weights: str):
    on_gpu = weights in ("coco", "imagenet")
    machine = Machine("cuda" if on_gpu else "cpu", weights=frozenset({weights} - {""}))
    draft = Draft(get_cfg(), ())
    draft.take(choose_network(machine, preset))
    draft.take(choose_batch(machine, on_gpu, bool(weights), 10**5, 300))
    draft.take(batch_norm(draft.cfg.MODEL.BACKBONE.NAME, draft.cfg.MODEL.WEIGHTS, 4))
    draft.take(choose_optimizer(on_gpu, bool(weights), 4))
    draft.take(choose_size(facts(), machine.device, preset))
    draft.take(choose_flips(["a cat"]))
    draft.take(choose_augmentation(facts(), 320, preset))
    validate_cfg(draft.cfg)
    assert bool(draft.cfg.MODEL.WEIGHTS) == bool(weights)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_small_objects_get_larger_pictures_and_never_smaller_ones(preset: str, device: str):
    shorts = []
    for side in (0.5, 0.2, 0.1, 0.05, 0.02, 0.005, 1e-9):
        keys = choose_size(facts(side, (4000, 3000)), device, preset).keys
        shorts.append(keys["INPUT.MIN_SIZE_TEST"])
    assert shorts == sorted(shorts) and shorts[0] < shorts[-1]


def test_the_size_is_the_smallest_that_shows_small_objects():
    found = choose_size(facts(0.055, (4000, 3000)), "cpu", "balanced")
    short = found.keys["INPUT.MIN_SIZE_TEST"]
    assert short * 0.055 >= 0.97 * SMALL_OBJECT > (short - 64) * 0.055
    assert f"{short * 0.055:.0f} px" in found.reason


@pytest.mark.parametrize("seed", range(20))
def test_sizes_fit_together_and_do_not_enlarge_pictures_much(seed: int):
    rng = random.Random(seed)
    size = rng.randint(100, 3000), rng.randint(100, 3000)
    data = facts(rng.uniform(0.001, 0.9), size)
    keys = choose_size(data, "cpu", rng.choice(PRESETS)).keys
    train, short, long = (
        keys[f"INPUT.{x}"] for x in ("MIN_SIZE_TRAIN", "MIN_SIZE_TEST", "MAX_SIZE_TEST")
    )
    assert train == sorted(train) and short in train and train[-1] <= 1.2 * short
    assert short <= long <= 2 * short + 32
    assert short <= max(192, 1.25 * min(size))
    assert train[-1] <= keys["INPUT.MAX_SIZE_TRAIN"] <= 2 * train[-1] + 32
    if min(data.sides) * short < 0.97 * SMALL_OBJECT:  # not made still smaller in training
        assert train[0] >= 0.8 * short


def test_too_few_epochs_make_smaller_pictures_down_to_256():
    shorts = [640]
    while (found := smaller(shorts[-1], facts(), 2.0)) is not None:
        shorts.append(found.keys["INPUT.MIN_SIZE_TEST"])
    assert shorts == sorted(shorts, reverse=True) and shorts[-1] == 256


@pytest.mark.parametrize("seed", range(20))
def test_the_batch_fits_into_memory_and_set(seed: int):
    rng = random.Random(seed)
    machine = Machine(
        rng.choice(["cpu", "cuda"]), memory=rng.randint(2**30, 2**37), gpus=rng.choice([1, 1, 4])
    )
    images, pixels = rng.randint(1, 2000), rng.randint(10**4, 10**6)
    is_large = rng.random() < 0.5
    keys = choose_batch(machine, is_large, rng.random() < 0.5, pixels, images).keys
    batch = keys["SOLVER.IMS_PER_BATCH"]
    per_device = batch // machine.gpus
    assert batch == per_device * machine.gpus and per_device & (per_device - 1) == 0
    assert 1 <= per_device <= images
    needed = per_device * pixels * PER_PIXEL["large" if is_large else "small"]
    assert needed <= OF_MEMORY * machine.memory or per_device == 1


def test_learning_rate_follows_the_batch():
    def rate(is_large: bool, batch: int) -> float:
        return choose_optimizer(is_large, True, batch).keys["SOLVER.BASE_LR"]

    assert rate(True, 16) == pytest.approx(0.01)
    assert rate(True, 8) == pytest.approx(0.005)
    assert rate(False, 16) == pytest.approx(2 * rate(False, 4), rel=0.01)


def test_batch_norm_is_frozen_in_small_batches_of_pretrained_networks_only():
    norm = "MODEL.RESNETS.NORM"
    assert batch_norm("resnet", "w.pth", 4).keys[norm] == "FrozenBN"
    assert batch_norm("resnet", "w.pth", 16).keys[norm] == "BN"
    assert batch_norm("resnet", "", 4).keys == {norm: "BN", "MODEL.BACKBONE.FREEZE_AT": 0}
    assert batch_norm("resnet", "", 2).keys[norm] == "GN"
    assert "MODEL.EFFICIENTNET_LITE.NORM" in batch_norm("build_efficientnet_lite_fpn", "w", 4).keys


@pytest.mark.parametrize(
    "names",
    [
        ["left hand", "right hand"],
        ["turn-left", "stop"],
        ["arrowRight", "stop"],
        ["a", "b", "c"],
        ["letter_q", "other"],
        ["0", "7"],
        ["digit 3", "other"],
        ["zero", "one", "two"],
        ["ace of spades", "other"],
        ["10h", "Qs"],
        ["king", "queen", "jack"],
        ["licence plate", "other"],
    ],
)
def test_names_that_a_mirror_changes_forbid_flips(names: list[str]):
    assert choose_flips(names).keys == {"INPUT.RANDOM_FLIP": "none"}
    assert "mirror" in choose_flips(names).reason


@pytest.mark.parametrize(
    "names",
    [
        ["RBC", "WBC", "Platelets"],
        ["licence plate"],  # nothing else that its mirror image could be
        ["one", "two", "three", "four", "five", "six"],  # dice
        ["cat", "dog"],
        ["person", "bicycle", "handbag"],
        ["copyright sign"],  # no word "right"
        ["class a"],
        ["helmet", "no helmet"],
        ["banana", "apple"],
        ["black-bishop", "white-king"],  # chess
    ],
)
def test_other_names_do_not(names: list[str]):
    assert why_no_flip(names) == ""


def test_small_sets_get_mosaics_at_the_pictures_shape_and_large_ones_do_not():
    keys = choose_augmentation(facts(size=(640, 480)), 384, "balanced").keys
    mosaic = keys["INPUT.AUG"][0]
    assert mosaic["NAME"] == "Mosaic" and mosaic["SIZE"] == [384, 512]
    upright = choose_augmentation(facts(size=(480, 640)), 384, "balanced").keys["INPUT.AUG"][0]
    assert upright["SIZE"] == [512, 384]
    small = choose_augmentation(facts(side=0.05), 384, "balanced").keys["INPUT.AUG"][0]
    assert mosaic["SCALE"][0] < small["SCALE"][0] <= 1 < small["SCALE"][1]
    many = choose_augmentation(facts(images=5000), 384, "balanced")
    assert many.keys["INPUT.AUG"] == ["Default"]
