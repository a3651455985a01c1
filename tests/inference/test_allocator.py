"""Memory that tensors gave back stays with the program, unless the environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import retinanet_ext_command
from retinanet_ext import cli
from retinanet_ext.inference import allocator

ROOT = Path(__file__).resolve().parents[2]
FREED = """
import ctypes, importlib.util, os, sys
spec = importlib.util.spec_from_file_location("allocator", sys.argv[1])
allocator = importlib.util.module_from_spec(spec)
spec.loader.exec_module(allocator)
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
is_set = allocator.keep_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
c.free.argtypes = [ctypes.c_void_p]
block = c.malloc(100 << 20)
ctypes.memset(block, 1, 100 << 20)
before = resident()
c.free(block)
print(is_set, before - resident() < 10 << 20)
"""


def is_glibc() -> bool:
    return sys.platform == "linux" and "CS_GNU_LIBC_VERSION" in os.confstr_names


def after_a_large_block(**environment: str) -> list[str]:
    """Whether the setting was made, and whether the freed block is still the process's."""
    kept = {k: v for k, v in os.environ.items() if k not in allocator.SETTINGS}
    command = [sys.executable, "-c", FREED, str(allocator.__file__)]
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not is_glibc(), reason="a setting of glibc")
def test_a_freed_block_stays_with_the_process():
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < allocator.LEAST_MEMORY:
        pytest.skip("a machine of less than 8 GiB")
    assert after_a_large_block() == ["True", "True"]


@pytest.mark.skipif(not is_glibc(), reason="a setting of glibc")
@pytest.mark.parametrize("name", allocator.SETTINGS)
def test_the_environment_decides_first(name):
    value = "glibc.malloc.check=0" if name == "GLIBC_TUNABLES" else "100000"
    assert after_a_large_block(**{name: value})[0] == "False"
    if name == "MALLOC_ARENA_MAX":
        assert after_a_large_block(**{name: value})[1] == "False"


def test_small_machines_return_it(monkeypatch):
    for name in allocator.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allocator, "LEAST_MEMORY", 2**60)
    assert not allocator.keep_freed_memory()


@pytest.mark.parametrize(
    ("command", "times"), [("predict", 1), ("serve", 1), ("evaluate", 1), ("check-data", 0)]
)
def test_only_programs_that_detect_keep_it(monkeypatch, command, times):
    calls = []
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: calls.append(1))
    for main in (retinanet_ext_command.main, cli.main):
        calls.clear()
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert calls == []  # the process is someone else's
        monkeypatch.setattr(sys, "argv", ["retinanet-ext", command, "--help"])
        with pytest.raises(SystemExit):
            main()
        assert len(calls) == times
