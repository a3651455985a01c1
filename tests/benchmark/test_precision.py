"""What both sides compute in: TF32 switched and put back, halves by autocast, the rest refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from retinanet_ext.benchmark.precision import (
    autocast,
    check_precision,
    full_precision,
    products,
)
from retinanet_ext.errors import InputError

BACKENDS = (torch.backends.cudnn, torch.backends.cuda.matmul)


@pytest.fixture(params=[True, False], autouse=True)
def before(request) -> Iterator[bool]:
    values = allowed()
    for backend in BACKENDS:  # cuda.matmul's attributes cannot be patched, only set
        backend.allow_tf32 = request.param
    yield request.param
    for backend, value in zip(BACKENDS, values, strict=True):
        backend.allow_tf32 = value


def allowed() -> list[bool]:
    return [backend.allow_tf32 for backend in BACKENDS]


def test_full_precision_turns_tf32_off_for_a_while(before):
    with pytest.raises(KeyError), full_precision():
        assert allowed() == [False, False]
        raise KeyError
    assert allowed() == [before, before]


@pytest.mark.parametrize(
    ("precision", "tf32"),
    [("float32", False), ("tf32", True), ("bfloat16", True), ("float16", True)],
)
def test_products_are_those_of_the_precision(before, precision, tf32):
    with products(precision):
        assert allowed() == [tf32, tf32]
    assert allowed() == [before, before]


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_halves_are_autocast(precision, dtype):
    x = torch.ones(2, 2)
    with autocast(precision, "cpu"):
        assert (x @ x).dtype == dtype


@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_what_needs_a_gpu_is_refused_elsewhere(precision):
    check_precision(precision, "cuda")
    check_precision(precision, "cuda:1")
    with pytest.raises(InputError, match=f"{precision} needs a GPU"):
        check_precision(precision, "cpu")


def test_other_names_are_refused():
    with pytest.raises(InputError, match="'half'; use float32, tf32"):
        check_precision("half", "cpu")
