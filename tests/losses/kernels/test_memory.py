"""Memory that the losses take, read from the operating system, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")

# PyTorch is imported once; each case is a fork, so that no other one's peak is in its way.
SCRIPT = """
import json, os, resource, sys
import torch
from retinanet_ext.losses import conv_focal_loss, sigmoid_focal_loss

def labels_of(anchors, num_classes):
    labels = torch.full((1, anchors), num_classes)
    labels[:, ::100] = 1
    labels[:, ::7] = -1
    return labels

def loss(height, width, dtype, layout, kernel):
    # 9 anchors, 80 classes
    logits = torch.empty(1, 720, height, width, dtype=getattr(torch, dtype)).normal_(-3)
    logits = logits.to(memory_format=getattr(torch, layout)).requires_grad_()
    labels = labels_of(height * width * 9, 80)
    def step():
        (sigmoid_focal_loss([logits], labels, 80, kernel=kernel) / 7).backward()
        assert logits.grad is not None
    return step, logits.numel() * logits.element_size()

def conv_loss(height, width):
    # 16 channels, 3 anchors, 1203 classes
    features = torch.empty(1, 16, height, width).normal_().requires_grad_()
    weight = torch.empty(3609, 16, 3, 3).normal_(std=0.01).requires_grad_()
    labels = labels_of(height * width * 3, 1203)
    def step():
        loss = conv_focal_loss([features], weight, None, labels, 1203, max_chunk_bytes=2**20)
        (loss / 7).backward()
        assert features.grad is not None and weight.grad is not None
    return step, 3609 * height * width * 4

def measure(name, size, *arguments):
    function = globals()[name]
    function(8, 8, *arguments)[0]()  # loads the libraries' code
    step, logits_bytes = function(*size, *arguments)
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps((peak - before) / logits_bytes), flush=True)

for case in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            measure(*case)
            status = 0
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(f"{case} failed")
"""

CASES = {
    "float32": ("loss", (128, 176), "float32", "contiguous_format", "auto"),
    "float32 channels_last": ("loss", (128, 176), "float32", "channels_last", "auto"),
    "bfloat16": ("loss", (128, 176), "bfloat16", "contiguous_format", "auto"),
    "reference": ("loss", (32, 44), "float32", "contiguous_format", "reference"),
    "convolution": ("conv_loss", (64, 72)),
}


@pytest.fixture(scope="module")
def ratios() -> dict[str, float]:
    """Peak memory of forward and backward beyond their inputs, as multiples of the logits."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(CASES.values()))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, map(float, done.stdout.split()), strict=True))


@pytest.mark.parametrize("case", list(CASES)[:3])
def test_forward_and_backward_take_little_more_than_the_gradient(ratios, case):
    # The gradient itself is 1, so less would mean that the measurement is wrong.
    assert 0.9 < ratios[case] <= 1.2


def test_the_measurement_sees_what_the_reference_takes(ratios):
    assert ratios["reference"] > 3


def test_the_fused_convolution_makes_no_logits(ratios):
    assert 0.03 < ratios["convolution"] <= 0.3  # the weight's gradient alone is 0.03
