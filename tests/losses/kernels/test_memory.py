"""Memory that the losses take.

The fused loss in the operating system's view, each case in a process of its own; the fused
convolution in PyTorch's view, since what a CPU's convolution routines keep for themselves differs
between kinds of CPU and does not grow with the logits.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from retinanet_ext.losses import conv_focal_loss

ROOT = Path(__file__).resolve().parents[3]

# PyTorch is imported once; each case is a fork, so that no other one's peak is in its way.
SCRIPT = """
import json, os, resource, sys
import torch
from retinanet_ext.losses import sigmoid_focal_loss

def prepare(height, width, dtype, layout, kernel):
    # 9 anchors, 80 classes
    logits = torch.empty(1, 720, height, width, dtype=getattr(torch, dtype)).normal_(-3)
    logits = logits.to(memory_format=getattr(torch, layout)).requires_grad_()
    labels = torch.full((1, height * width * 9), 80)
    labels[:, ::100] = 1
    labels[:, ::7] = -1
    def step():
        (sigmoid_focal_loss([logits], labels, 80, kernel=kernel) / 7).backward()
        assert logits.grad is not None
    return step, logits.numel() * logits.element_size()

def measure(height, width, *arguments):
    prepare(8, 8, *arguments)[0]()  # loads the libraries' code
    step, logits_bytes = prepare(height, width, *arguments)
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
    "float32": (128, 176, "float32", "contiguous_format", "auto"),
    "float32 channels_last": (128, 176, "float32", "channels_last", "auto"),
    "bfloat16": (128, 176, "bfloat16", "contiguous_format", "auto"),
    "reference": (32, 44, "float32", "contiguous_format", "reference"),
}


@pytest.fixture(scope="module")
def ratios() -> dict[str, float]:
    """Peak memory of forward and backward beyond their inputs, as multiples of the logits."""
    if sys.platform != "linux":
        pytest.skip("reads /proc/self/statm")
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


def test_the_fused_convolution_makes_no_logits(tmp_path):
    channels, num_anchors, num_classes, height, width = 16, 3, 1203, 64, 72
    features = torch.randn(1, channels, height, width).requires_grad_()
    weight = torch.randn(num_anchors * num_classes, channels, 3, 3).mul_(0.01).requires_grad_()
    labels = torch.full((1, height * width * num_anchors), num_classes)
    labels[:, ::100] = 1
    labels[:, ::7] = -1
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss = conv_focal_loss([features], weight, None, labels, num_classes, max_chunk_bytes=2**20)
        (loss / 7).backward()
    assert features.grad is not None and weight.grad is not None
    trace = tmp_path / "trace.json"
    profiler.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    peak = max(e["args"]["Total Allocated"] for e in events if e["name"] == "[memory]")
    logits_bytes = len(weight) * height * width * 4
    assert weight.numel() * 4 < peak <= 0.15 * logits_bytes
