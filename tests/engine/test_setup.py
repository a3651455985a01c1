"""From arguments to a frozen config: precedence, devices, early errors, what is written where."""

import json
import logging
import math

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.data.datasets import register
from retinanet_ext.data.datasets.register import register_builtin_datasets
from retinanet_ext.engine import setup as engine_setup
from retinanet_ext.engine.dry_run import dry_run
from retinanet_ext.engine.eval_only import evaluate
from retinanet_ext.engine.setup import (
    build_cfg,
    check_data,
    default_argument_parser,
    merge_opts,
    resolve_device,
    setup,
)
from retinanet_ext.engine.trainer import RetinaNetTrainer
from retinanet_ext.losses import class_alphas
from tests.helpers.tiny import write_config


@pytest.fixture
def cfg():
    return get_cfg()


@pytest.fixture
def arguments(tmp_path, tiny_root):
    """Parse a command line that names the tiny config and dataset; undo the dataset root."""

    def parse(*words):
        head = ["--config-file", str(write_config(tmp_path)), "--data-root", str(tiny_root)]
        return default_argument_parser().parse_args([*head, *words])

    yield parse
    register_builtin_datasets()


def pretend_cuda(monkeypatch, available):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)


def test_command_line_wins_over_file_wins_over_defaults(arguments):
    cfg = build_cfg(arguments("SOLVER.BASE_LR", "0.5"))
    assert cfg.SOLVER.BASE_LR == 0.5
    assert cfg.SOLVER.IMS_PER_BATCH == 4
    assert cfg.SOLVER.MOMENTUM == get_cfg().SOLVER.MOMENTUM


def test_zero_gpus_mean_the_cpu(arguments):
    assert build_cfg(arguments("--num-gpus", "0", "MODEL.DEVICE", "cuda")).MODEL.DEVICE == "cpu"
    assert build_cfg(arguments("--num-gpus", "1", "MODEL.DEVICE", "cuda")).MODEL.DEVICE == "cuda"


@pytest.mark.parametrize(
    "opts, error, words",
    [
        (["SOLVER.BASE_LRR", "1"], KeyError, "SOLVER.BASE_LRR.*Did you mean 'SOLVER.BASE_LR'"),
        (["SOLVER.BASE_LR=1"], KeyError, "Write 'SOLVER.BASE_LR 1'"),
        (["SOLVER", "1"], KeyError, "unknown config key 'SOLVER'"),
        (["SOLVER.BASE_LR"], ValueError, "SOLVER.BASE_LR' .* no value"),
        (["SOLVER.MAX_ITER", "many"], ValueError, "SOLVER.MAX_ITER"),
        (["SOLVER.BASE_LR", "1", "--resume"], ValueError, "--resume must stand before"),
    ],
)
def test_mistakes_on_the_command_line_are_named(cfg, opts, error, words):
    with pytest.raises(error, match=words):
        merge_opts(cfg, opts)


@pytest.mark.parametrize("whole", ["1", 1, "+1"])
def test_a_whole_number_is_a_float_where_one_is_wanted(cfg, whole):
    """yacs refuses it: "Type mismatch" of float and int, which the user did not write."""
    merge_opts(cfg, ["SOLVER.BASE_LR", whole, "SOLVER.MAX_ITER", "7"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (1.0, 7)
    assert type(cfg.SOLVER.BASE_LR) is float
    with pytest.raises(ValueError, match=r"SOLVER\.MAX_ITER"):
        merge_opts(cfg, ["SOLVER.MAX_ITER", "1.5"])


def test_absent_accelerator_becomes_the_cpu_with_a_log_line(cfg, monkeypatch, caplog):
    pretend_cuda(monkeypatch, False)
    cfg.MODEL.DEVICE = "cuda"
    with caplog.at_level(logging.INFO):
        resolve_device(cfg)
    assert cfg.MODEL.DEVICE == "cpu"
    assert ["running on the CPU" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cpu"])
def test_present_device_stays(cfg, monkeypatch, device):
    pretend_cuda(monkeypatch, True)
    cfg.MODEL.DEVICE = device
    resolve_device(cfg)
    assert device == cfg.MODEL.DEVICE


def test_unknown_device_is_named(cfg):
    cfg.MODEL.DEVICE = "gpu"
    with pytest.raises(ValueError, match=r"MODEL.DEVICE is 'gpu'"):
        resolve_device(cfg)


@pytest.mark.parametrize("device", ["meta", "vulkan"])
def test_a_device_that_computes_nothing_here_is_named(cfg, device):
    cfg.MODEL.DEVICE = device
    with pytest.raises(ValueError, match=rf"^MODEL\.DEVICE is '{device}', on which .*cannot"):
        resolve_device(cfg)


def test_mixed_precision_needs_cuda(cfg, monkeypatch):
    cfg.SOLVER.AMP.ENABLED = True
    pretend_cuda(monkeypatch, True)
    resolve_device(cfg)
    pretend_cuda(monkeypatch, False)
    with pytest.raises(ValueError, match=r"SOLVER\.AMP\.ENABLED"):
        resolve_device(cfg)


@pytest.mark.parametrize("eval_only, checked", [(False, ("a",)), (True, ())])
def test_evaluation_alone_needs_no_training_data(cfg, monkeypatch, eval_only, checked):
    seen = []
    monkeypatch.setattr(engine_setup, "check_datasets", lambda c: seen.append(c.DATASETS))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("a",), ("b",)
    check_data(cfg, eval_only)
    assert (checked, ("b",)) == (seen[0].TRAIN, seen[0].TEST)
    assert cfg.DATASETS.TRAIN == ("a",)


BALANCED = ["MODEL.RETINANET.CLS_LOSS", "ClassBalancedFocal"]
GIVEN = ["MODEL.RETINANET.CLASS_BALANCE", "given", "MODEL.RETINANET.CLASS_ALPHA", "[.1, .2, .3]"]


@pytest.mark.parametrize("balance", ["inverse", "effective"])
def test_class_counts_come_from_the_training_annotations(arguments, tiny_root, balance):
    path = tiny_root / "bccd" / "annotations" / "instances_train.json"
    annotations = json.loads(path.read_text())["annotations"]
    expected = [sum(a["category_id"] == k for a in annotations) for k in (1, 2, 3)]
    assert min(expected) > 0 and len(set(expected)) > 1
    cfg = setup(arguments("--dry-run", *BALANCED, "MODEL.RETINANET.CLASS_BALANCE", balance))
    assert expected == cfg.MODEL.RETINANET.CLASS_COUNTS


def test_a_saved_config_trains_with_the_class_counts(arguments, tmp_path):
    cfg = setup(arguments(*BALANCED, "OUTPUT_DIR", str(tmp_path / "run")))
    again = get_cfg()
    load_config_file(again, tmp_path / "run" / "config.yaml", allow_unsafe=False)
    node = again.MODEL.RETINANET
    assert node.CLASS_COUNTS == cfg.MODEL.RETINANET.CLASS_COUNTS != []
    alphas = class_alphas(node.CLASS_COUNTS, node.FOCAL_LOSS_ALPHA, beta=node.CLASS_BALANCE_BETA)
    assert build_model(again).cls_loss.alphas.tolist() == pytest.approx(alphas)
    assert math.isfinite(dry_run(again)["loss_cls"])


@pytest.mark.parametrize(
    "opts",
    [
        [],  # another loss
        [*BALANCED, *GIVEN],
        [*BALANCED, "MODEL.RETINANET.CLASS_COUNTS", "[7, 8, 9]"],
    ],
)
def test_class_counts_are_left_alone_where_nobody_asks(arguments, monkeypatch, opts):
    monkeypatch.setattr(engine_setup, "count_classes", lambda *_: pytest.fail("counted"))
    args = arguments("--dry-run", *opts)
    assert build_cfg(args).MODEL.RETINANET.CLASS_COUNTS == setup(args).MODEL.RETINANET.CLASS_COUNTS


def test_evaluation_with_class_balance_needs_no_training_data(arguments, tmp_path):
    weights = tmp_path / "model.pth"
    opts = [*BALANCED, "MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", str(tmp_path / "eval")]
    cfg = build_cfg(arguments(*opts))
    model = build_model(cfg)
    torch.save({"model": model.state_dict()}, weights)
    cfg = setup(arguments("--eval-only", *opts, "DATASETS.TRAIN", "('not_here',)"))
    assert cfg.MODEL.RETINANET.CLASS_COUNTS == []
    assert "bbox" in evaluate(cfg)


def test_a_training_without_data_is_named(arguments):
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN is empty, so there is nothing to train"):
        setup(arguments("DATASETS.TRAIN", "()"))


def test_class_balance_without_training_data_is_named(arguments):
    with pytest.raises(ValueError, match=r"DATASETS.TRAIN is empty.*CLASS_COUNTS"):
        setup(arguments("--dry-run", *BALANCED, "DATASETS.TRAIN", "()"))


def test_setup_freezes_and_saves_a_config_that_can_be_run(arguments, tmp_path):
    cfg = setup(arguments("OUTPUT_DIR", str(tmp_path / "run")))
    assert cfg.is_frozen()
    again = get_cfg()
    load_config_file(again, tmp_path / "run" / "config.yaml", allow_unsafe=False)
    validate_cfg(again)
    for section in ("DATASETS", "SOLVER", "INPUT"):
        assert again[section] == cfg[section]
    assert again.MODEL.RETINANET == cfg.MODEL.RETINANET


def test_setup_sends_our_log_lines_to_the_log_file(arguments, tmp_path):
    setup(arguments("OUTPUT_DIR", str(tmp_path / "run")))
    logging.getLogger("retinanet_ext.engine").info("a line of ours")
    assert "a line of ours" in (tmp_path / "run" / "log.txt").read_text()


def test_setup_of_a_dry_run_writes_nothing(arguments, tmp_path):
    setup(arguments("--dry-run", "OUTPUT_DIR", str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_setup_validates_before_it_writes(arguments, tmp_path):
    args = arguments("MODEL.ROI_HEADS.NUM_CLASSES", "3", "OUTPUT_DIR", str(tmp_path / "run"))
    with pytest.raises(ValueError, match="ROI_HEADS"):
        setup(args)
    assert not (tmp_path / "run").exists()


def test_setup_checks_classes_before_training(arguments):
    with pytest.raises(ValueError, match=r"NUM_CLASSES is 2 .*3"):
        setup(arguments("--dry-run", "MODEL.RETINANET.NUM_CLASSES", "2"))


def test_a_start_reads_each_training_set_once(arguments, monkeypatch):
    reads = []
    load = register.load_coco_json
    monkeypatch.setattr(register, "load_coco_json", lambda *a: reads.append(a[2]) or load(*a))
    epochs = ["SOLVER.EPOCHS", "2", "SOLVER.MAX_ITER", "0"]
    cfg = setup(arguments("--dry-run", *BALANCED, *epochs))
    RetinaNetTrainer(cfg)
    assert reads == ["bccd_train"]
    # The trainer has let it go.
    DatasetCatalog.get("bccd_train")
    assert reads == ["bccd_train"] * 2


def test_a_failed_start_keeps_nothing_that_was_read(arguments):
    with pytest.raises(ValueError, match="NUM_CLASSES is 2"):
        setup(arguments("--dry-run", "MODEL.RETINANET.NUM_CLASSES", "2"))
    reads = DatasetCatalog["bccd_train"]
    assert isinstance(reads, register.CocoDataset)


def test_keys_that_were_set_are_known_even_where_they_have_the_default(tmp_path):
    base, path = tmp_path / "base.yaml", tmp_path / "config.yaml"
    base.write_text("MODEL:\n  RETINANET:\n    NUM_CLASSES: 80\n")
    path.write_text("_BASE_: base.yaml\nSOLVER:\n  BASE_LR: 0.5\n")
    cfg = get_cfg()
    assert load_config_file(cfg, path) == {"MODEL.RETINANET.NUM_CLASSES", "SOLVER.BASE_LR"}
    assert merge_opts(cfg, ["SEED", "-1"]) == {"SEED"}


def test_the_console_of_a_start_is_short_and_the_log_file_whole(arguments, tmp_path, capsys):
    setup(arguments("OUTPUT_DIR", str(tmp_path / "run")))
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 1 and shown[0].startswith("data: bccd_train, 12 images")
    log = (tmp_path / "run" / "log.txt").read_text()
    for words in ("Environment info", "Running with full config", "BASE_LR: 0.001"):
        assert words in log
    assert "\x1b[" not in log


def test_verbose_shows_detectron2s_start(arguments, tmp_path, capsys):
    setup(arguments("--verbose", "OUTPUT_DIR", str(tmp_path / "verbose")))
    assert "Environment info" in capsys.readouterr().out
