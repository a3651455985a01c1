"""From the command line to a checked, frozen config: everything that can fail early fails here."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser as detectron2_argument_parser
from detectron2.engine import default_setup
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from ..config import get_cfg, load_config_file, validate_cfg
from ..config.epochs import counts_epochs
from ..config.load import flatten
from ..config.run_rules import check_amp_device
from ..config.shipped import find_config
from ..data.datasets.by_path import register_extra_datasets
from ..data.datasets.check import check_datasets
from ..data.datasets.class_counts import count_classes
from ..data.datasets.command_line import name_datasets
from ..data.datasets.register import load_class_names, register_builtin_datasets
from ..errors import ConfigError, InputError, UserError, did_you_mean, one_line
from ..registry import CLS_LOSS_REGISTRY
from ..structures import RETINANET_ARCHITECTURES
from .launch.checks import check_processes, check_weights
from .launch.launching import add_launch_arguments, launch_line
from .launch.restarts import continues_job, job_starts
from .optim.schedule import count_training_images, resolve_epochs, scale_learning_rate
from .records.remote_writers import check_remote_writers
from .step.determinism import make_deterministic

logger = logging.getLogger(__name__)

T = TypeVar("T")


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """Detectron2's argument parser plus this package's flags."""
    parser = detectron2_argument_parser(epilog)
    add_launch_arguments(parser)
    for name, use in (("train", "train on"), ("val", "evaluate on")):
        parser.add_argument(
            f"--{name}",
            metavar="ANNOTATIONS[:IMAGE_DIR]",
            help=f"{use} this COCO json, folder of VOC xml, YOLO data.yaml or CSV",
        )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="class names of --train and --val where VOC or CSV list none: rows of name or name,id",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, train on one batch, evaluate one image, write nothing, exit",
    )
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="folder of this package's built-in datasets (default: $DETECTRON2_DATASETS, else "
        "./datasets); Detectron2's own, such as coco_2017_train, follow the variable only",
    )
    parser.add_argument("--device", default="", metavar="NAME", help="sets MODEL.DEVICE")
    parser.add_argument(
        "--allow-unsafe-yaml",
        action="store_true",
        help="let the config file run python code through yaml tags (only for files you trust)",
    )
    return parser


def setup(args: argparse.Namespace) -> CfgNode:
    """Return the frozen config of a run, after everything checkable without training was checked.

    Call it in every process of a job. It also starts logging, seeds the random generators, writes
    ``config.yaml`` to ``OUTPUT_DIR`` (not in a dry run) and generates the quickstart dataset.

    Raises:
        UserError: a mistake of the user's, in one sentence.
        OSError: a file cannot be read or written.
    """
    register_builtin_datasets(args.data_root)
    cfg = build_cfg(args)
    warnings = validate_cfg(cfg)
    make_deterministic(cfg)  # before anything is computed on a GPU
    _start_logging(cfg, args)
    logger.info("%s", launch_line())
    for warning in warnings:
        logger.warning("%s", warning)
    if not (args.resume or args.eval_only or args.dry_run):
        starts = job_starts()
        args.resume = on_main_process(lambda: continues_job(cfg.OUTPUT_DIR, starts))
    trains = args.dry_run or not args.eval_only  # a dry run does, for a step
    add_extra_datasets(cfg, eval_only=not trains, fill=not _sets_num_classes(args))
    resolve_device(cfg)
    check_processes(cfg)
    check_weights(cfg, resume=args.resume, eval_only=args.eval_only)
    on_main_process(lambda: check_data(cfg, eval_only=not trains))
    if trains:  # else the training data may not even exist, and there is no loss
        check_remote_writers(cfg)
        fill_class_counts(cfg)
        resolve_schedule(cfg)
    cfg.freeze()
    if args.dry_run:
        seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
    else:
        default_setup(cfg, args)
    _share_cpu_cores(cfg)
    return cfg


def build_cfg(args: argparse.Namespace) -> CfgNode:
    """Merge defaults, config file and command line, in this order.

    ``args.config_file`` becomes a path where it is the name of a shipped config: Detectron2's
    ``default_setup`` opens it, too.

    Raises:
        UserError: names the file, the key or the value.
    """
    if args.config_file:
        args.config_file = find_config(args.config_file)
    cfg = get_cfg()
    _merge(cfg, args)
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    name_datasets(cfg, args.train, args.val, args.classes)
    return cfg


def add_extra_datasets(cfg: CfgNode, eval_only: bool = False, fill: bool = False) -> None:
    """Read and register the datasets of ``DATASETS.EXTRA`` that this run uses.

    Args:
        cfg: the config.
        eval_only: whether ``DATASETS.TRAIN`` is not used.
        fill: whether ``MODEL.RETINANET.NUM_CLASSES`` becomes the number of their classes. False
            where the user has set it, and ``check_data`` compares.

    Raises:
        ValueError, OSError: what is wrong with a dataset.
    """
    if not cfg.DATASETS.EXTRA:
        return
    names = cfg.DATASETS.TEST if eval_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    # First in the main process alone: the others then find what it read in the cache.
    extra = on_main_process(lambda: register_extra_datasets(cfg, names))
    if not comm.is_main_process():
        register_extra_datasets(cfg, names)
    if extra and fill and cfg.MODEL.META_ARCHITECTURE in RETINANET_ARCHITECTURES:
        cfg.MODEL.RETINANET.NUM_CLASSES = len(load_class_names(extra[0]) or ())
        validate_cfg(cfg)


def merge_opts(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Merge ``KEY VALUE KEY VALUE ...`` from the command line into ``cfg``.

    Raises:
        ConfigError: a key does not exist; names the nearest one.
        InputError: the list is not made of pairs, or a value has the wrong type.
    """
    for word in opts:
        if word.startswith("--"):
            raise InputError(f"{word} must stand before the KEY VALUE pairs on the command line")
    known = {name for name, _ in flatten(cfg)}
    for key in opts[::2]:
        if key not in known:
            name, _, value = key.partition("=")
            hint = f" Write '{name} {value}'." if name in known else did_you_mean(key, known)
            raise ConfigError(f"unknown config key '{key}' on the command line.{hint}")
    if len(opts) % 2:
        raise InputError(f"config key '{opts[-1]}' on the command line has no value after it")
    try:
        cfg.merge_from_list(list(opts))
    except ValueError as error:  # yacs names the key, its type and the value's
        raise InputError(f"on the command line: {one_line(error)}") from error


def _merge(cfg: CfgNode, args: argparse.Namespace) -> None:
    if args.config_file:
        load_config_file(cfg, args.config_file, allow_unsafe=args.allow_unsafe_yaml)
    merge_opts(cfg, args.opts or [])
    cfg.MODEL.DEVICE = getattr(args, "device", "") or cfg.MODEL.DEVICE


def _sets_num_classes(args: argparse.Namespace) -> bool:
    """Whether config file or command line say ``NUM_CLASSES``, be it the default's value."""
    cfg, nobodys_value = get_cfg(), -(2**31)
    cfg.MODEL.RETINANET.NUM_CLASSES = nobodys_value
    _merge(cfg, args)
    return nobodys_value != cfg.MODEL.RETINANET.NUM_CLASSES


def resolve_device(cfg: CfgNode) -> None:
    """Set ``MODEL.DEVICE`` to ``"cpu"``, with a log line, where its accelerator is absent.

    Raises:
        ValueError: torch does not know the device, or mixed precision is asked of a CPU.
    """
    try:
        kind = torch.device(cfg.MODEL.DEVICE).type
    except RuntimeError:
        raise InputError(
            f"MODEL.DEVICE is '{cfg.MODEL.DEVICE}', which torch does not know; use cuda or cpu"
        ) from None
    absent = (kind == "cuda" and not torch.cuda.is_available()) or (
        kind == "mps" and not torch.backends.mps.is_available()
    )
    if absent:
        logger.info("MODEL.DEVICE is %s but torch finds none: running on the CPU", kind)
        cfg.MODEL.DEVICE = kind = "cpu"
    check_amp_device(cfg, kind)


def check_data(cfg: CfgNode, eval_only: bool = False) -> None:
    """Check the datasets of this run; generates the quickstart dataset if it is one of them.

    Raises:
        ValueError, OSError: a dataset is missing, cannot be written or does not fit the config.
    """
    if eval_only:
        cfg = cfg.clone()
        cfg.DATASETS.TRAIN = ()  # may not even exist where the model is only evaluated
    check_datasets(cfg)


def fill_class_counts(cfg: CfgNode) -> None:
    """Set an empty ``CLASS_COUNTS`` to the objects of the training set, if the loss reads it.

    Raises:
        ValueError: there is no training set, or no object in it.
    """
    node = cfg.MODEL.RETINANET
    architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    reads_node = "MODEL.RETINANET" in getattr(architecture, "config_sections", ())
    if not reads_node or node.CLASS_COUNTS:
        return
    needs = getattr(CLS_LOSS_REGISTRY.get(node.CLS_LOSS), "needs_class_counts", False)
    if not (needs(node) if callable(needs) else needs):
        return
    if not cfg.DATASETS.TRAIN:
        raise InputError(
            f"DATASETS.TRAIN is empty, so {node.CLS_LOSS} has no objects to count; name a "
            "dataset, or set MODEL.RETINANET.CLASS_COUNTS"
        )
    node.CLASS_COUNTS = on_main_process(lambda: count_classes(cfg.DATASETS.TRAIN, node.NUM_CLASSES))


def resolve_schedule(cfg: CfgNode) -> None:
    """Turn lengths in epochs into iterations, and fit the learning rate to the batch.

    Raises:
        ValueError: a length is given twice, or the lengths do not fit together.
    """
    if counts_epochs(cfg):
        resolve_epochs(cfg, on_main_process(lambda: count_training_images(cfg)))
    scale_learning_rate(cfg)


def on_main_process(function: Callable[[], T]) -> T:
    """Run ``function`` in the main process while the others wait.

    Its result, or a user error that it raises, reaches all of them.
    """
    result: tuple[Any, Exception | None] = None, None
    if comm.is_main_process():
        try:
            result = function(), None
        except (UserError, OSError) as caught:
            result = None, caught
    value, error = comm.all_gather(result)[0]
    if error is not None:
        raise error
    return value


def _start_logging(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Send this package's log lines where ``default_setup`` sends Detectron2's."""
    output_dir, rank = (None if args.dry_run else cfg.OUTPUT_DIR), comm.get_rank()
    setup_logger(output_dir, distributed_rank=rank, name="retinanet_ext", abbrev_name="rnx")
    if args.dry_run:
        setup_logger(distributed_rank=rank)


def _share_cpu_cores(cfg: CfgNode) -> None:
    """Split the cores among the processes of a CPU job, which otherwise each start one per core."""
    processes = comm.get_local_size()
    if cfg.MODEL.DEVICE == "cpu" and processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
