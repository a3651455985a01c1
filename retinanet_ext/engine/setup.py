"""From the command line to a checked, frozen config: everything that can fail early fails here."""

from __future__ import annotations

import argparse
import logging
import os

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser as detectron2_argument_parser
from detectron2.engine import default_setup
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from ..config import get_cfg, load_config_file, validate_cfg
from ..config.load import add_config_arguments, merge_opts
from ..config.shipped import find_config
from ..data.datasets.by_path import register_extra_datasets
from ..data.datasets.check import check_datasets
from ..data.datasets.class_counts import count_classes
from ..data.datasets.command_line import name_datasets
from ..data.datasets.read_once import hold_datasets, release_datasets
from ..data.datasets.register import load_class_names, register_builtin_datasets
from ..errors import InputError
from ..inference.exported import cfg_of_export
from ..registry import CLS_LOSS_REGISTRY
from ..structures import detection_node, detection_section
from .job import share_cpu_cores, start_logging
from .launch.checks import check_output_dir, check_processes, check_weights
from .launch.device import resolve_device
from .launch.launching import add_launch_arguments, launch_line
from .launch.main_process import on_main_process
from .launch.output_lock import hold_output_dir, release_output_dir
from .launch.restarts import continues_job, job_starts
from .optim.schedule import resolve_schedule
from .records.remote_writers import check_remote_writers
from .step.reproducibility import make_deterministic
from .user_modules import import_modules

__all__ = [
    "add_extra_datasets",
    "build_cfg",
    "check_data",
    "default_argument_parser",
    "fill_class_counts",
    "merge_opts",
    "resolve_device",
    "setup",
]

logger = logging.getLogger(__name__)


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
        "--force",
        action="store_true",
        help="train in an OUTPUT_DIR whose lock names a process that another machine had, and that "
        "is gone",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="show on the console what else is only in OUTPUT_DIR/log.txt: environment, config, "
        "model, every log line",
    )
    add_config_arguments(parser)
    return parser


def setup(args: argparse.Namespace) -> CfgNode:
    """Return the frozen config of a run, after everything checkable without training was checked.

    Call it in every process of a job. It also starts logging, seeds the random generators, writes
    ``config.yaml`` to ``OUTPUT_DIR`` (not in a dry run) and generates the quickstart dataset. The
    folder is locked until :func:`.launch.output_lock.release_output_dir` or the process's end. The
    training datasets that it reads stay in memory until :class:`.trainer.RetinaNetTrainer` has
    built its loader, or :func:`retinanet_ext.data.datasets.read_once.release_datasets` is called.

    Raises:
        UserError: a mistake of the user's, in one sentence.
        OSError: a file cannot be read or written.
    """
    try:
        return _set_up(args)
    except BaseException:
        release_datasets()  # the user may change their files before the next call
        release_output_dir()
        raise


def _set_up(args: argparse.Namespace) -> CfgNode:
    release_datasets()
    register_builtin_datasets(args.data_root)
    cfg, set_keys = _merged(args)
    warnings = validate_cfg(cfg)
    check_output_dir(cfg.OUTPUT_DIR)
    make_deterministic(cfg)  # before anything is computed on a GPU
    writes = not (args.eval_only or args.dry_run)
    starts = job_starts()
    taken = ""
    if writes:
        force = getattr(args, "force", False)
        taken = on_main_process(lambda: hold_output_dir(cfg.OUTPUT_DIR, starts, force))
    start_logging(None if args.dry_run else cfg.OUTPUT_DIR, args.verbose)
    logger.info("%s", launch_line())
    for warning in (*warnings, *filter(None, [taken])):
        logger.warning("%s", warning)
    if writes and not args.resume:
        args.resume = on_main_process(lambda: continues_job(cfg.OUTPUT_DIR, starts))
    trains = args.dry_run or not args.eval_only  # a dry run does, for a step
    fill = f"{detection_section(cfg)}.NUM_CLASSES" not in set_keys
    add_extra_datasets(cfg, eval_only=not trains, fill=fill)
    resolve_device(cfg)
    check_processes(cfg)
    check_weights(cfg, resume=args.resume, eval_only=args.eval_only)
    if trains:
        hold_datasets(cfg.DATASETS.TRAIN)
    on_main_process(lambda: check_data(cfg, eval_only=not trains))
    if trains:  # else the training data may not even exist, and there is no loss
        check_remote_writers(cfg)
        fill_class_counts(cfg)
        resolve_schedule(cfg)
        if not cfg.DATASETS.TRAIN:
            raise InputError(
                "DATASETS.TRAIN is empty, so there is nothing to train on; name a dataset there, "
                "give --train, or evaluate only, with --eval-only"
            )
    cfg.freeze()
    if args.dry_run:
        seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
    else:
        default_setup(cfg, args)
    share_cpu_cores(cfg)
    return cfg


def build_cfg(args: argparse.Namespace) -> CfgNode:
    """Merge defaults, config file and command line, in this order.

    ``args.config_file`` becomes a path where it is the name of a shipped config: Detectron2's
    ``default_setup`` opens it, too.

    Raises:
        UserError: names the file, the key or the value.
    """
    return _merged(args)[0]


def _merged(args: argparse.Namespace) -> tuple[CfgNode, set[str]]:
    """The config of :func:`build_cfg`, and the keys that its file and the command line set."""
    import_modules(getattr(args, "imports", ()))
    cfg, set_keys = get_cfg(), set()
    if model := getattr(args, "model", ""):
        cfg, set_keys = cfg_of_export(model), {"MODEL.RETINANET.NUM_CLASSES"}
        cfg.OUTPUT_DIR = os.path.join(os.path.dirname(cfg.MODEL.WEIGHTS), "evaluation")
    elif args.config_file:
        args.config_file = find_config(args.config_file)
        set_keys = load_config_file(cfg, args.config_file, allow_unsafe=args.allow_unsafe_yaml)
    set_keys |= merge_opts(cfg, args.opts or [])
    cfg.MODEL.DEVICE = getattr(args, "device", "") or cfg.MODEL.DEVICE
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    name_datasets(cfg, args.train, args.val, args.classes)
    return cfg, set_keys


def add_extra_datasets(cfg: CfgNode, eval_only: bool = False, fill: bool = False) -> None:
    """Read and register the datasets of ``DATASETS.EXTRA`` that this run uses.

    Args:
        cfg: the config.
        eval_only: whether ``DATASETS.TRAIN`` is not used.
        fill: whether ``NUM_CLASSES`` of the model becomes the number of their classes. False
            where the user has set it, and ``check_data`` compares.

    Raises:
        ValueError, OSError: what is wrong with a dataset.
    """
    if not cfg.DATASETS.EXTRA:
        return
    names = cfg.DATASETS.TEST if eval_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    # First in the main process only: the others then find what it read in the cache.
    extra = on_main_process(lambda: register_extra_datasets(cfg, names))
    if not comm.is_main_process():
        register_extra_datasets(cfg, names)
    node = detection_node(cfg)
    if extra and fill and node is not None:
        node.NUM_CLASSES = len(load_class_names(extra[0]) or ())
        validate_cfg(cfg)


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
    entry = CLS_LOSS_REGISTRY.get(node.CLS_LOSS)
    needs = getattr(entry, "needs_class_counts", False)
    if not (needs(node) if callable(needs) else needs):
        return
    if not cfg.DATASETS.TRAIN:
        raise InputError(
            f"DATASETS.TRAIN is empty, so {node.CLS_LOSS} has no objects to count; name a "
            "dataset, or set MODEL.RETINANET.CLASS_COUNTS"
        )
    images = getattr(entry, "counts_images", False)
    node.CLASS_COUNTS = on_main_process(
        lambda: count_classes(cfg.DATASETS.TRAIN, node.NUM_CLASSES, images)
    )
