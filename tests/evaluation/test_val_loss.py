"""The validation loss: what it is, what it does not depend on, and that it changes nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from PIL import Image
from torch import nn
from torchvision.ops import DropBlock3d, StochasticDepth

from retinanet_ext.data.loading.bad_images import BadImageError
from retinanet_ext.evaluation.val_loss import _set_modes, build_val_loss_loader, validation_losses
from retinanet_ext.modeling.criteria.normalizer import NORMALIZERS, LossNormalizer
from tests.helpers.tiny import tiny_cfg
from tests.helpers.two_ranks import run_on_two_ranks

DATASET = "val_loss_images"
# Width, height; boxes (XYXY, class, crowd) of each.
IMAGES = [
    ((64, 64), [((4, 4, 40, 44), 0, 0), ((30, 8, 60, 50), 2, 0)]),
    ((80, 48), [((10, 10, 40, 40), 1, 0), ((45, 2, 78, 46), 1, 1)]),
    ((64, 64), []),
    ((48, 96), [((8, 20, 44, 80), 1, 0)]),
    ((100, 50), [((5, 5, 25, 25), 0, 0)]),
]


@pytest.fixture(scope="module", autouse=True)
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Five images of four shapes, one without objects and one with a crowd."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    dicts = []
    for i, ((width, height), boxes) in enumerate(IMAGES):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        annotations = [
            {
                "bbox": [float(x) for x in box],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": k,
                "iscrowd": crowd,
            }
            for box, k, crowd in boxes
        ]
        entry = {"file_name": str(path), "image_id": i, "width": width, "height": height}
        dicts.append({**entry, "annotations": annotations})
    DatasetCatalog.register(DATASET, lambda: copy.deepcopy(dicts))
    MetadataCatalog.get(DATASET).thing_classes = ["a", "b", "c"]
    yield
    DatasetCatalog.remove(DATASET)
    MetadataCatalog.remove(DATASET)


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    """A tiny detector, and settings of training that a validation loss must not follow."""
    cfg = tiny_cfg(tmp_path)
    cfg.DATASETS.TEST = (DATASET,)
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.MIN_SIZE_TRAIN = (32, 96)
    cfg.INPUT.AUG = ["Default", "RandomBrightness"]
    return cfg


def build(cfg: CfgNode) -> nn.Module:
    torch.manual_seed(0)
    return build_model(cfg)


@pytest.fixture
def images(cfg: CfgNode) -> list[dict]:
    return [image for batch in build_val_loss_loader(cfg, DATASET) for image in batch]


def test_images_are_those_of_evaluation_with_the_truth_of_training(images):
    assert [x["image_id"] for x in images] == [0, 1, 2, 3, 4]
    assert [tuple(x["image"].shape[1:]) for x in images[:3]] == [(64, 64), (64, 107), (64, 64)]
    assert [len(x["instances"]) for x in images] == [2, 1, 0, 1, 1]
    assert [len(x["ignore_boxes"]) for x in images] == [0, 1, 0, 0, 0]
    # Scaled by 4/3, not flipped.
    box = images[1]["instances"].gt_boxes.tensor[0]
    torch.testing.assert_close(
        box, torch.tensor([10.0, 10.0, 40.0, 40.0]) * 4 / 3, rtol=0.01, atol=0
    )


def test_it_is_the_sum_of_losses_per_positive_anchor(cfg, images):
    model = build(cfg).train()
    pair = [images[0], images[2]]  # of one shape, so that the batch has no padding
    found = validation_losses(model, [pair])
    model.loss_normalizer.kind = "positives"
    with EventStorage(), torch.no_grad():
        expected = model(pair)
    assert set(found) == {"total", "cls", "box_reg"}
    assert found["cls"] == pytest.approx(expected["loss_cls"].item(), rel=1e-5)
    assert found["box_reg"] == pytest.approx(expected["loss_box_reg"].item(), rel=1e-5)
    assert found["total"] == pytest.approx(found["cls"] + found["box_reg"])


def test_it_does_not_follow_the_normalizer_of_training(cfg, images):
    model = build(cfg)
    found = []
    for kind in NORMALIZERS:
        model.loss_normalizer.kind = kind
        found.append(validation_losses(model, [images[:1]]))
    assert found == found[:1] * len(NORMALIZERS)


@pytest.mark.parametrize("kind", NORMALIZERS)
def test_a_normalizer_that_counts_divides_by_one_and_stays_as_it_was(kind):
    normalizer = LossNormalizer(kind=kind)
    with normalizer.counting() as counts:
        assert [normalizer(7).item(), normalizer.eval()(0).item()] == [1.0, 1.0]
    assert counts == [7, 0] and normalizer.mean == 100.0
    assert normalizer.train()(7, 9).item() == LossNormalizer(kind=kind)(7, 9).item()


def test_a_set_without_objects_is_divided_by_one(cfg, images):
    found = validation_losses(build(cfg), [[images[2]]])
    assert found["box_reg"] == 0.0 and 0 < found["cls"] < np.inf


def test_crowds_are_left_out_as_in_training(cfg, images):
    model = build(cfg)
    with_crowd = validation_losses(model, [[images[1]]])
    image = {k: v for k, v in images[1].items() if k != "ignore_boxes"}
    assert validation_losses(model, [[image]])["cls"] > with_crowd["cls"]


@pytest.mark.parametrize("architecture", ["RetinaNetExt", "RetinaNet"])
def test_batches_and_order_do_not_matter_in_any_bit(cfg, images, architecture):
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.MODEL.RESNETS.NORM = "BN"
    model = build(cfg)
    one_by_one = validation_losses(model, [[x] for x in images])
    assert validation_losses(model, [images[3:], images[1:3], images[:1]]) == one_by_one
    assert validation_losses(model, build_val_loss_loader(cfg, DATASET)) == one_by_one


def test_other_models_give_the_mean_over_images(cfg, images):
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    model = build(cfg)
    each = [validation_losses(model, [[x]])["cls"] for x in images]
    assert validation_losses(model, [images])["cls"] == pytest.approx(np.mean(each))
    # Detectron2's running normalizer moves in training, and counts for nothing here.
    model.loss_normalizer = 1.0
    assert validation_losses(model, [images])["cls"] == pytest.approx(np.mean(each))
    assert model.loss_normalizer == 1.0


def _losses_of_rank(rank: int, cfg: CfgNode, architecture: str) -> dict[str, float]:
    cfg.MODEL.META_ARCHITECTURE = architecture
    return validation_losses(build(cfg), build_val_loss_loader(cfg, DATASET))


@pytest.mark.parametrize("architecture", ["RetinaNetExt", "RetinaNet"])
def test_processes_share_the_images_and_agree_with_one(cfg, architecture):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the two processes: bits depend on it
    try:
        alone = _losses_of_rank(0, cfg.clone(), architecture)
    finally:
        torch.set_num_threads(threads)
    by_two = run_on_two_ranks(_losses_of_rank, cfg, architecture)
    assert by_two == [alone, alone]


class Sampling(nn.Module):
    """A model whose losses are random numbers, and that counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch):
        self.calls += 1
        self.seen += 1
        self.latest = 3.0
        draws = {"loss_t": torch.rand(()), "n": torch.tensor(np.random.rand())}
        return {**draws, "loss_p": torch.tensor(random.random()), "calls": torch.tensor(self.calls)}


def test_random_samples_are_the_same_for_each_image_and_call():
    image = {"instances": None}
    model = Sampling()
    losses = validation_losses(model, [[image]])
    assert set(losses) == {"total", "t", "n", "p", "calls"}
    torch.rand(3)
    random.random()
    assert validation_losses(model, [[image, image], [image]]) == losses
    assert model.calls == 0 and model.seen == 0 and not hasattr(model, "latest")


class Given(nn.Module):
    """A model whose loss is written on the image."""

    def forward(self, batch):
        return {"loss": torch.tensor(batch[0]["loss"])}


def test_sums_are_exact_in_any_order():
    images = [{"instances": None, "loss": x} for x in (1e17, 1.0, 1.0, -1e17)]
    assert validation_losses(Given(), [images])["loss"] == 0.5
    assert validation_losses(Given(), [images[::-1]])["loss"] == 0.5


def random_states() -> list:
    state = np.random.get_state()
    return [random.getstate(), state[1].tolist(), state[2], torch.get_rng_state().tolist()]


@pytest.mark.parametrize("workers", [0, 1])
def test_it_changes_nothing(cfg, workers):
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.RETINANET.NORM = "BN"
    cfg.VIS_PERIOD = 1
    cfg.DATALOADER.NUM_WORKERS = workers
    model = build(cfg).train()
    model.head.cls_subnet.eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    weights = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    random.seed(5)
    np.random.seed(5)
    states = random_states()
    with EventStorage() as storage:
        validation_losses(model, build_val_loss_loader(cfg, DATASET))
        assert not storage.histories() and not storage._vis_data
    assert random_states() == states
    assert [module.training for module in model.modules()] == modes
    assert model.vis_period == 1
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert all(torch.equal(x.grad, torch.ones_like(x)) for x in model.parameters())


def test_norms_use_running_statistics_and_dropout_is_off(cfg, images):
    cfg.MODEL.RESNETS.NORM = "BN"
    model = build(cfg)
    model.backbone.bottom_up.stem.add_module("dropout", nn.Dropout(0.5))
    model.eval()
    modes = {}
    for name, module in model.named_modules():
        module.register_forward_pre_hook(
            lambda m, _, name=name: modes.update({name: (type(m).__name__, m.training)})
        )
    dropout = model.backbone.bottom_up.stem.dropout
    model.backbone.bottom_up.stem.register_forward_hook(lambda m, _, out: dropout(out))
    validation_losses(model, [images[:1]])
    assert modes[""] == ("RetinaNetExt", True)
    by_kind = dict(modes.values())
    assert by_kind["BatchNorm2d"] is False and by_kind["Dropout"] is False
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("kind", "trains"),
    [
        (nn.AlphaDropout, False),
        (nn.Dropout2d, False),
        (lambda: DropBlock3d(0.1, 3), False),
        (lambda: StochasticDepth(0.1, "row"), False),
        (type("DropPath", (nn.Module,), {}), False),  # timm's, and many copies of it
        (lambda: nn.InstanceNorm2d(4), False),
        (type("Backdrop", (nn.Module,), {}), True),
        (lambda: nn.GroupNorm(1, 4), True),
    ],
)
def test_what_is_random_is_off_and_the_rest_trains(kind, trains):
    module = kind()
    _set_modes(module)
    assert module.training is trains


def test_all_is_as_before_after_an_error(cfg, images):
    model = build(cfg)
    model.vis_period = 5
    random.seed(5)
    np.random.seed(5)
    states = random_states()
    with pytest.raises(ValueError, match=r"1\.png has no annotations.*TEST.VAL_LOSS False"):
        validation_losses(model, [[images[0]], [{"file_name": "1.png"}]])
    assert random_states() == states and model.vis_period == 5
    assert model.loss_normalizer(7).item() == pytest.approx(0.9 * 100 + 0.1 * 7)


def test_no_images_are_an_error(cfg):
    with pytest.raises(ValueError, match="at least one image"):
        validation_losses(build(cfg), [])


def test_a_bad_image_is_named(cfg):
    entries = DatasetCatalog.get(DATASET)[:1]
    entries[0]["file_name"] = "nowhere.png"
    DatasetCatalog.register("val_loss_bad", lambda: entries)
    try:
        with pytest.raises(BadImageError, match=r"nowhere\.png"):
            list(build_val_loss_loader(cfg, "val_loss_bad"))
    finally:
        DatasetCatalog.remove("val_loss_bad")
