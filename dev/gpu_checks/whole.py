"""Section "whole": the quickstart on the device, exact resume after a kill, the loader's speed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from .report import Job

__all__ = ["loader_speed", "prepare_data", "resume_exactly", "train_quickstart"]

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "datasets"
CONFIG = "configs/quickstart.yaml"
LOWEST_AP = 60.0
TIMEOUT = 240  # seconds of one training


def prepare_data(job: Job) -> None:
    """Generate the quickstart's pictures, if they are not there yet."""
    from retinanet_ext.data.quickstart.dataset import ensure_quickstart

    ensure_quickstart(str(DATA))


def _command(job: Job, output: Path, *options: str) -> list[str]:
    command = [sys.executable, "train_net.py", "--config-file", CONFIG, "--data-root", str(DATA)]
    return [*command, *options, "MODEL.DEVICE", job.device, "OUTPUT_DIR", str(output)]


def _train(job: Job, output: Path, *keys: str, resume: bool = False) -> None:
    command = [*_command(job, output, *(["--resume"] if resume else [])), *keys]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT
    )
    if done.returncode:
        text = done.stdout.decode(errors="replace")
        print(text, file=sys.stderr)
        last = (text.strip().splitlines() or ["nothing printed"])[-1]
        raise RuntimeError(f"train_net.py ended with {done.returncode}: {last}")


def train_quickstart(job: Job, precision: str) -> None:
    """Train and evaluate it; the AP must be one of a model that has learned."""
    name = f"quickstart, {precision}"
    with job.guarded(name), tempfile.TemporaryDirectory() as folder:
        keys = {
            "float32": (),
            "bfloat16": ("MODEL.SPEEDUPS.AUTOCAST", "bfloat16"),
            "float16": ("SOLVER.AMP.ENABLED", "True"),
        }[precision]
        if job.tiny:
            keys = (*keys, "SOLVER.MAX_ITER", "4", "TEST.PRECISE_BN.ENABLED", "False")
        start = time.monotonic()
        _train(job, Path(folder), *keys)
        seconds = time.monotonic() - start
        results = [r for r in _metrics(Path(folder)) if "bbox/AP" in r][-1]
        iterations = [r["time"] for r in _metrics(Path(folder)) if "time" in r]
        ap = results["bbox/AP"]
        learned = ap >= LOWEST_AP or job.tiny
        text = f"AP {ap:.1f}, AR100 {results['bbox/AR100']:.1f}, whole command {seconds:.0f} s"
        if iterations:
            text += f", {1e3 * sorted(iterations)[len(iterations) // 2]:.0f} ms an iteration"
        text += "" if learned else f"; at least {LOWEST_AP:g} was expected"
        job.tell(name, "ok" if learned else "FAIL", text, ap=ap, whole_seconds=seconds)


def _metrics(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def resume_exactly(job: Job) -> None:
    """A run that is killed and resumed ends with the weights of one that was not, bit by bit."""
    name = "kill -9 and --resume, DETERMINISTIC"
    period, end = (2, 4) if job.tiny else (20, 60)
    keys: tuple[str, ...] = ("DETERMINISTIC", "True", "SOLVER.MAX_ITER", str(end), "SEED", "3")
    keys += ("SOLVER.CHECKPOINT_PERIOD", str(period), "DATASETS.TEST", "()")
    keys += ("TEST.PRECISE_BN.ENABLED", "False")
    with job.guarded(name), tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        _train(job, whole, *keys)
        _train_until_checkpoint(job, killed, period, keys)
        _train(job, killed, *keys, resume=True)
        models = [
            torch.load(output / "model_final.pth", map_location="cpu", weights_only=False)["model"]
            for output in (whole, killed)
        ]
        different = [key for key in models[0] if not torch.equal(models[0][key], models[1][key])]
        text = f"{len(models[0])} tensors, {len(different)} differ"
        text += f", first {different[0]}" if different else ""
        job.tell(name, "FAIL" if different else "ok", text, different=len(different))


def _train_until_checkpoint(job: Job, output: Path, period: int, keys: Iterable[str]) -> None:
    """Start a training and kill it as soon as its first checkpoint is written."""
    process = subprocess.Popen(
        [*_command(job, output), *keys],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    first = output / f"model_{period - 1:07d}.pth"
    end = time.monotonic() + TIMEOUT
    while not (first.is_file() and (output / "last_checkpoint").is_file()):
        if process.poll() is not None or time.monotonic() > end:
            break
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if not first.is_file():
        raise RuntimeError(f"{first.name} was never written, exit code {process.returncode}")


def loader_speed(job: Job) -> None:
    """Images per second of our loader and Detectron2's, resized to 800 pixels."""
    from detectron2.data import build_detection_train_loader

    from retinanet_ext import get_cfg, load_config_file
    from retinanet_ext.data.datasets.register import register_builtin_datasets
    from retinanet_ext.engine.loaders import build_train_loader

    name = "loader"
    with job.guarded(name):
        register_builtin_datasets(str(DATA))
        cfg = get_cfg()
        load_config_file(cfg, str(ROOT / CONFIG))
        cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (800,), 1333
        cfg.SOLVER.IMS_PER_BATCH = 4 if job.tiny else 16
        cfg.DATALOADER.NUM_WORKERS = min(8, os.cpu_count() or 1)
        batches = 2 if job.tiny else 20
        rates = {}
        for side, build in (("ours", build_train_loader), ("theirs", build_detection_train_loader)):
            stream = iter(build(cfg))
            next(stream)
            start = time.monotonic()
            count = sum(len(batch) for batch in itertools.islice(stream, batches))
            rates[side] = count / (time.monotonic() - start)
            del stream
        text = f"{rates['theirs']:.0f} -> {rates['ours']:.0f} images/s at 800 px, "
        text += f"{cfg.DATALOADER.NUM_WORKERS} workers"
        job.tell(name, text=text, images_per_second=rates["ours"], their_rate=rates["theirs"])
