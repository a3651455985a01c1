"""A LazyConfig made from a yaml config is the same model, data, optimizer and learning rate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import SimpleTrainer, default_setup, default_writers, hooks
from detectron2.engine.defaults import create_ddp_model, default_argument_parser
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import ParamScheduler

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.config.shipped import CONFIGS
from retinanet_ext.engine.lazy import lazy_config
from retinanet_ext.engine.optim.solver import build_lr_scheduler, build_optimizer
from retinanet_ext.modeling import RetinaNetExt
from tests.helpers.parity import (
    assert_same_detections,
    assert_same_losses,
    make_batch,
    spread_predictions,
)
from tests.helpers.tiny import restored_loggers, tiny_cfg

LAZY_FILES = sorted(CONFIGS.glob("*.py"))


def names() -> list[str]:
    return [path.stem for path in LAZY_FILES]


def shipped_cfg(name: str):
    cfg = get_cfg()
    load_config_file(cfg, f"{name}.yaml")
    return cfg


def pair(cfg):
    """The model of a config, and that of its LazyConfig with the same weights."""
    validate_cfg(cfg)
    torch.manual_seed(0)
    by_yaml = build_model(cfg)
    by_lazy = instantiate(lazy_config(cfg)["model"])
    by_lazy.load_state_dict(by_yaml.state_dict())
    return by_yaml, by_lazy


def learning_rates(optimizer, scheduler, number: int) -> list[float]:
    found = []
    for _ in range(number):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_there_are_some_and_each_has_its_yaml():
    assert len(LAZY_FILES) >= 3
    assert all(path.with_suffix(".yaml").is_file() for path in LAZY_FILES)


@pytest.mark.parametrize("name", names())
def test_a_shipped_file_says_what_its_yaml_says(name: str):
    lazy, cfg = LazyConfig.load(str(CONFIGS / f"{name}.py")), shipped_cfg(name)
    assert lazy.model._target_ is RetinaNetExt
    assert lazy.model.num_classes == cfg.MODEL.RETINANET.NUM_CLASSES == lazy.model.head.num_classes
    assert lazy.model.backbone.bottom_up.stages.depth == cfg.MODEL.RESNETS.DEPTH
    assert lazy.train.max_iter == cfg.SOLVER.MAX_ITER
    assert lazy.train.init_checkpoint == cfg.MODEL.WEIGHTS
    assert lazy.dataloader.train.total_batch_size == cfg.SOLVER.IMS_PER_BATCH
    assert lazy.dataloader.train.dataset.names == "coco_2017_train"
    assert lazy.dataloader.evaluator.dataset_name == "coco_2017_val"
    weights = {k: v.shape for k, v in instantiate(lazy.model).state_dict().items()}
    cfg.MODEL.DEVICE = "cpu"
    assert weights == {k: v.shape for k, v in build_model(cfg).state_dict().items()}


def test_values_are_changed_on_the_command_line_as_in_detectron2():
    lazy = LazyConfig.load(str(CONFIGS / "retinanet_R_50_FPN_1x.py"))
    LazyConfig.apply_overrides(lazy, ["model.num_classes=3", "model.decoder.score_thresh=0.3"])
    LazyConfig.apply_overrides(lazy, ["model.backbone.bottom_up.stages.depth=101"])
    model = instantiate(lazy.model)
    assert (model.num_classes, model.assigner.num_classes, model.decoder.num_classes) == (3, 3, 3)
    assert model.head.cls_score.out_channels == 27
    assert model.test_score_thresh == 0.3
    assert len(model.backbone.bottom_up.res4) == 23


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"NORM": "GN", "BBOX_REG_LOSS_TYPE": "giou", "BOX_LOSS_WEIGHT": 2.0},
        {"CLS_LOSS": "VarifocalLoss", "ASSIGNER": "ATSSAssigner", "QUALITY_BRANCH": "iou"},
        {"CLS_LOSS": "OHEM", "HEAD": "SharedTowerHead", "LOSS_NORMALIZER": "positives"},
        {"NMS_KIND": "soft", "SCORE_THRESH_TEST": 0.1, "FUSED_CLS_LOSS_MIN_CLASSES": 1},
    ],
    ids=lambda x: "-".join(map(str, x.values())),
)
def test_losses_and_detections_are_those_of_the_yaml(settings: dict):
    keys = {} if "HEAD" in settings else {"MODEL.BACKBONE.FREEZE_AT": 2}
    by_yaml, by_lazy = pair(tiny_cfg(keys=keys, **settings))
    if hasattr(by_yaml.head, "cls_subnet"):
        spread_predictions(by_yaml)
        by_lazy.load_state_dict(by_yaml.state_dict())
        assert_same_detections(by_yaml, by_lazy, make_batch(3))
    assert_same_losses(by_yaml, by_lazy, make_batch(3))
    assert by_lazy.fuse_cls_loss == by_yaml.fuse_cls_loss
    assert by_lazy.speedups == by_yaml.speedups


def test_another_backbone_is_built_from_its_sections():
    keys = {
        "MODEL.BACKBONE.NAME": "build_fpn_backbone_p6p7",
        "MODEL.FPN.BOTTOM_UP": "build_resnet_backbone",
        "MODEL.FPN.TOP_BLOCK_IN": "p5",
    }
    lazy = lazy_config(tiny_cfg(keys=keys))["model"]
    assert lazy.backbone.settings.FPN.TOP_BLOCK_IN == "p5"
    by_yaml, by_lazy = pair(tiny_cfg(keys=keys))
    assert_same_losses(by_yaml, by_lazy, make_batch(3))
    lazy.backbone.settings.FPN.OUT_CHANNELS = 16
    for shape in lazy.head.input_shape:
        shape.channels = 16
    assert instantiate(lazy).backbone.fpn_output4.out_channels == 16


@pytest.mark.parametrize(
    "solver",
    [
        {"MAX_ITER": 12, "STEPS": (5, 9), "GAMMA": 0.2, "WARMUP_ITERS": 3},
        {"MAX_ITER": 12, "LR_SCHEDULER_NAME": "WarmupCosineLR", "BASE_LR_END": 1e-5},
        {"MAX_ITER": 12, "LR_SCHEDULER_NAME": "OneCycleLR", "OPTIMIZER": "AdamW"},
        {"BIAS_LR_FACTOR": 2.0, "WEIGHT_DECAY_NORM": 0.3, "WEIGHT_DECAY_BIAS": 0.0},
    ],
)
def test_optimizer_and_learning_rate_are_those_of_the_yaml(solver: dict):
    cfg = tiny_cfg(keys={f"SOLVER.{key}": value for key, value in solver.items()}, NORM="GN")
    cfg.SOLVER.STEPS = solver.get("STEPS", ())
    cfg.SOLVER.WARMUP_ITERS = solver.get("WARMUP_ITERS", 0)
    lazy, model = lazy_config(cfg), build_model(cfg)
    expected = build_optimizer(cfg, model)
    lazy["optimizer"].params.model = model
    got = instantiate(lazy["optimizer"])
    assert type(got) is type(expected)
    # Detectron2 puts parameters with equal settings together, and Lazy may leave them separate.
    assert by_parameter(got) == by_parameter(expected)
    multiplier = instantiate(lazy["lr_multiplier"])
    assert isinstance(multiplier, ParamScheduler)
    scheduler = LRMultiplier(got, multiplier=multiplier, max_iter=cfg.SOLVER.MAX_ITER)
    rates = learning_rates(got, scheduler, 12)
    assert rates == learning_rates(expected, build_lr_scheduler(cfg, expected), 12)


def by_parameter(optimizer) -> dict[int, tuple]:
    names = ("lr", "weight_decay", "momentum", "betas", "nesterov")
    return {
        id(p): tuple(tuple(x) if isinstance(x := group.get(n), (list, tuple)) else x for n in names)
        for group in optimizer.param_groups
        for p in group["params"]
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.RETINANET.FREEZE", ["backbone"]),
        ("INPUT.AUG", ["Default", "RandomContrast"]),
        ("SOLVER.CLIP_GRADIENTS.ENABLED", True),
        ("SOLVER.EPOCHS", 3.0),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
    ],
)
def test_what_a_lazy_config_cannot_say_is_refused_by_name(key: str, value):
    with pytest.raises(ValueError, match=rf"{key}.* cannot be said in a LazyConfig"):
        lazy_config(tiny_cfg(keys={key: value}))


def test_other_models_and_several_test_sets_are_refused():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    with pytest.raises(ValueError, match="made of RetinaNetExt only"):
        lazy_config(cfg)
    with pytest.raises(ValueError, match="evaluates one dataset"):
        lazy_config(tiny_cfg(keys={"DATASETS.TEST": ("a", "b")}))


LAZY_FILE = """
from retinanet_ext.engine.lazy import lazy_config

_config = lazy_config("{path}")
model, dataloader, optimizer, lr_multiplier, train = _config.values()
"""


@pytest.fixture
def lazy_file(cfg, tmp_path) -> Path:
    """A file in LazyConfig form of the tiny config on the tiny dataset."""
    yaml_file, path = tmp_path / "whole.yaml", tmp_path / "tiny.py"
    yaml_file.write_text(cfg.dump())
    path.write_text(LAZY_FILE.format(path=yaml_file))
    return path


def test_a_training_as_of_detectron2s_lazyconfig_tool(lazy_file: Path):
    """The calls of tools/lazyconfig_train_net.py: train, save, evaluate, resume."""
    args = default_argument_parser().parse_args(["--config-file", str(lazy_file)])
    with restored_loggers():
        cfg = LazyConfig.load(args.config_file)
        cfg = LazyConfig.apply_overrides(cfg, ["train.max_iter=3", "train.checkpointer.period=2"])
        default_setup(cfg, args)
        model = instantiate(cfg.model)
        model.to(cfg.train.device)
        assert type(model) is RetinaNetExt
        cfg.optimizer.params.model = model
        optimizer = instantiate(cfg.optimizer)
        wrapped = create_ddp_model(model, **cfg.train.ddp)
        trainer = SimpleTrainer(wrapped, instantiate(cfg.dataloader.train), optimizer)
        checkpointer = DetectionCheckpointer(wrapped, cfg.train.output_dir, trainer=trainer)
        results = []

        def evaluate():
            loader, evaluator = map(instantiate, (cfg.dataloader.test, cfg.dataloader.evaluator))
            results.append(inference_on_dataset(wrapped, loader, evaluator))
            return results[-1]

        writers = default_writers(cfg.train.output_dir, cfg.train.max_iter)
        trainer.register_hooks(
            [
                hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
                hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
                hooks.EvalHook(cfg.train.eval_period, evaluate),
                hooks.PeriodicWriter(writers, period=1),
            ]
        )
        checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=False)
        trainer.train(0, cfg.train.max_iter)
    output = Path(cfg.train.output_dir)
    assert (output / "model_final.pth").is_file() and (output / "model_0000001.pth").is_file()
    assert len(results) == 1 and 0 <= results[0]["bbox"]["AP"] <= 100
    assert '"loss_cls"' in (output / "metrics.json").read_text()
    assert (output / "config.yaml").is_file()
    fresh = instantiate(cfg.model)
    DetectionCheckpointer(fresh, str(output)).resume_or_load("", resume=True)
    for name, value in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name
