"""The fused focal loss behaves in autograd like any other loss."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retinanet_ext.losses import sigmoid_focal_loss
from retinanet_ext.losses.kernels import chunked, dispatch

ROOT = Path(__file__).resolve().parents[3]
K = 3


def problem():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2 * K, 3, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, K + 1, (2, 24), generator=generator)
    return logits.requires_grad_(), labels


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradcheck(gamma: float):
    logits, labels = problem()
    assert torch.autograd.gradcheck(
        lambda x: sigmoid_focal_loss([x], labels, K, 0.25, gamma), (logits,)
    )


def test_gradient_is_scaled_by_what_follows():
    logits, labels = problem()
    (sigmoid_focal_loss([logits], labels, K) / 7).backward()
    other = logits.detach().clone().requires_grad_()
    (sigmoid_focal_loss([other], labels, K, kernel="reference") / 7).backward()
    torch.testing.assert_close(logits.grad, other.grad)


def test_a_kept_graph_gives_the_same_gradient_again():
    logits, labels = problem()
    loss = sigmoid_focal_loss([logits], labels, K)
    (first,) = torch.autograd.grad(3 * loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(3 * loss, logits)
    torch.testing.assert_close(first, second)


def test_no_graph_without_a_gradient():
    logits, labels = problem()
    assert not sigmoid_focal_loss([logits.detach()], labels, K).requires_grad
    with torch.no_grad():
        assert not sigmoid_focal_loss([logits], labels, K).requires_grad


def test_no_gradient_is_made_under_no_grad(monkeypatch):
    asked = []
    plain = chunked.focal_loss_and_gradient

    def spy(*arguments):
        asked.append(arguments[5])
        return plain(*arguments)

    monkeypatch.setattr(chunked, "focal_loss_and_gradient", spy)
    logits, labels = problem()
    sigmoid_focal_loss([logits], labels, K)
    with torch.no_grad():
        sigmoid_focal_loss([logits], labels, K)
    assert asked == [True, False]


def test_a_leaf_takes_its_gradient_over_without_a_copy():
    logits, labels = problem()
    loss = sigmoid_focal_loss([logits], labels, K)
    made = loss.grad_fn.gradients[0].data_ptr()
    loss.backward(retain_graph=True)
    assert logits.grad.data_ptr() != made
    logits.grad = None
    loss.backward()
    assert logits.grad.data_ptr() == made


def test_gradients_that_are_gone_are_asked_for_in_vain():
    logits, labels = problem()
    loss = sigmoid_focal_loss([logits], labels, K)
    loss.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        loss.backward()


def test_float16_keeps_the_small_gradients_that_a_grad_scaler_enlarges():
    logits = torch.linspace(-6, -5, 24, dtype=torch.float16).view(1, 6, 2, 2).requires_grad_()
    labels = torch.full((1, 8), K)
    (sigmoid_focal_loss([logits], labels, K) * 6554).backward()
    exact = logits.detach().float().requires_grad_()
    (sigmoid_focal_loss([exact], labels, K) * 6554).backward()
    assert exact.grad.min() / 6554 < 2**-24  # unscaled, float16 has nothing so small
    torch.testing.assert_close(logits.grad.float(), exact.grad, rtol=2e-3, atol=0)


def test_autocast_leaves_the_loss_in_float32():
    logits, labels = problem()
    logits = logits.detach().bfloat16()
    expected = sigmoid_focal_loss([logits], labels, K)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sigmoid_focal_loss([logits], labels, K)
    assert loss.dtype == torch.float32
    assert loss == expected


def test_unknown_kernel_lists_the_known_ones():
    logits, labels = problem()
    with pytest.raises(ValueError, match="auto, reference, chunked, triton, got 'fast'"):
        sigmoid_focal_loss([logits], labels, K, kernel="fast")


def test_chunked_can_be_asked_for():
    logits, labels = problem()
    expected = sigmoid_focal_loss([logits], labels, K)
    assert sigmoid_focal_loss([logits], labels, K, kernel="chunked") == expected


def test_triton_needs_a_cuda_tensor():
    pytest.importorskip("triton", reason="Triton is not installed")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("TRITON_INTERPRET=1 in the environment: Triton runs on the CPU")
    logits, labels = problem()
    with pytest.raises(ValueError, match=r"logits are on 'cpu'.*'chunked'.*TRITON_INTERPRET"):
        sigmoid_focal_loss([logits], labels, K, kernel="triton")


def test_a_triton_that_fails_warns_once_and_gives_way(monkeypatch, caplog):
    tried = []

    def fail(device):
        tried.append(device)
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(dispatch, "_triton_runs", True)
    monkeypatch.setattr(dispatch, "_triton_focal", fail)
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: object())
    logits, labels = problem()
    arguments = ([logits.detach()], labels, K, 0.25, 2.0)
    for _ in range(2):
        assert dispatch.by_triton_where_it_runs(arguments) is None
    assert len(tried) == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "RuntimeError: no C compiler" in record.message


def test_a_full_gpu_is_no_reason_to_give_triton_up(monkeypatch):
    def fail(device):
        raise torch.cuda.OutOfMemoryError("full")

    monkeypatch.setattr(dispatch, "_triton_runs", True)
    monkeypatch.setattr(dispatch, "_triton_focal", fail)
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(torch.cuda.OutOfMemoryError):
        dispatch.by_triton_where_it_runs(([torch.zeros(1)],))
    assert dispatch._triton_runs


def test_losses_work_where_triton_is_missing():
    script = (
        "import sys\n"
        "sys.modules['triton'] = None\n"
        "import torch\n"
        "from retinanet_ext.losses import sigmoid_focal_loss\n"
        "from retinanet_ext.losses.kernels.dispatch import by_triton_where_it_runs\n"
        "logits, labels = torch.zeros(2, 3), torch.tensor([0, 3])\n"
        "print(f'{sigmoid_focal_loss(logits, labels, 3).item():.4f}')\n"
        "print(by_triton_where_it_runs(([logits],)))\n"
        "try:\n"
        "    sigmoid_focal_loss(logits, labels, 3, kernel='triton')\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loss, result, message = done.stdout.splitlines()
    assert loss == "0.6931"  # ln 2 / 4 * (0.25 * 1 + 0.75 * 5)
    assert result == "None"
    assert "Triton is not installed" in message and "'chunked'" in message


@pytest.mark.cuda(needs="CUDA, for which Triton compiles")
def test_auto_takes_triton_on_cuda(monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")
    logits, labels = problem()
    moved = logits.detach().float().cuda()
    monkeypatch.setattr(chunked, "focal_loss_and_gradient", lambda *_: pytest.fail("chunked ran"))
    loss = sigmoid_focal_loss([moved], labels.cuda(), K)
    monkeypatch.undo()
    torch.testing.assert_close(loss.cpu(), sigmoid_focal_loss([logits.detach().float()], labels, K))
