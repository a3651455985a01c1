"""Pictures of many pixels, looked at by tiles, take little more memory than to be decoded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SIDE = 10_000
# The exit code of a child, and the peak of its own memory. Pages of PyTorch's libraries are left
# out: the kernel maps 0.4 to 0.8 GB of them, by what it has read ahead, and can drop them.
MEASURED = """
import pathlib, subprocess, sys, time
child, own = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL), 0
while child.poll() is None:
    status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
    own = max([own, *(int(x.split()[1]) for x in status.splitlines() if x.startswith("RssAnon"))])
    time.sleep(0.005)
print(child.returncode, own)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the memory of a child")
# Pillow, which draws, holds 4 bytes a pixel.
@pytest.mark.parametrize(
    ("options", "limit"),
    [([], 0.95e9), (["--draw", "--no-labels"], 1.25e9)],
    ids=["json", "drawn"],
)
def test_a_picture_of_100_megapixels_takes_little_more(run, tmp_path, options, limit):
    gradient = Image.linear_gradient("L").resize((SIDE, SIDE))
    Image.merge("RGB", [gradient, gradient.transpose(Image.Transpose.ROTATE_90), gradient]).save(
        tmp_path / "large.jpg"
    )
    del gradient
    words = ["predict", run, tmp_path / "large.jpg", "--output", tmp_path / "out"]
    command = [sys.executable, "-m", "retinanet_ext_command", *map(str, words), *options]
    command += ["--tile", "3400", "--max-dets", "10", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command], cwd=ROOT, capture_output=True, text=True
    )
    code, own = map(int, done.stdout.split())
    assert code == 0, done.stderr
    assert own * 1024 < limit
