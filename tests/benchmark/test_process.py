"""Memory is read in a new process; its failures are told apart."""

from __future__ import annotations

import subprocess

import pytest

from retinanet_ext.benchmark import process
from retinanet_ext.benchmark.process import OutOfMemory, measure_in_own_process


@pytest.mark.slow
def test_a_new_process_measures(settings):
    peak = measure_in_own_process("labelling", "retinanet_ext", settings)
    assert peak.num_bytes >= 0 and peak.method


@pytest.mark.parametrize(
    "code,stderr,error",
    [
        (-9, "", OutOfMemory),
        (1, "RuntimeError: DefaultCPUAllocator: can't allocate memory", OutOfMemory),
        (1, "torch.OutOfMemoryError: CUDA out of memory. Tried", OutOfMemory),
        (1, "Traceback\nKeyError: 'nothing'", RuntimeError),
    ],
)
def test_lack_of_memory_is_told_from_a_failure(settings, monkeypatch, code, stderr, error):
    done = subprocess.CompletedProcess([], code, stdout="", stderr=stderr)
    monkeypatch.setattr(process.subprocess, "run", lambda *args, **kwargs: done)
    with pytest.raises(RuntimeError) as caught:
        measure_in_own_process("loss", "detectron2", settings)
    assert type(caught.value) is error
    assert "loss" in str(caught.value) and "detectron2" in str(caught.value)
