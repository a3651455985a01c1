"""Files of weights of every kind, read and written; none of them can run code."""

import argparse
import builtins
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from retinanet_ext.weights import reading as weights_module
from retinanet_ext.weights.reading import (
    WeightsError,
    plain_types,
    read_weights,
    read_zoo_file,
    save_weights,
)

NAMES = ["RBC", "thrombocyte µ"]


@pytest.fixture
def safetensors():
    return pytest.importorskip("safetensors", reason="the package safetensors is not installed")


@pytest.fixture
def state():
    weight = torch.randn(3, 4)
    return {"a.weight": weight, "a.tied": weight, "a.view": weight.t(), "n": torch.tensor(7)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("names", [NAMES, []])
def test_what_is_written_is_read(tmp_path, state, suffix, names, request):
    if suffix == ".safetensors":
        request.getfixturevalue("safetensors")
    path = tmp_path / f"w{suffix}"
    save_weights(path, state, names)
    content = read_weights(path)
    assert content.pop("thing_classes", []) == names
    assert set(content) == {"model"}
    assert sorted(content["model"]) == sorted(state)
    for name, tensor in state.items():
        assert torch.equal(content["model"][name], tensor)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_safetensors_of_others_are_read(tmp_path, safetensors, state):
    from safetensors.torch import save_file

    save_file({"a.weight": state["a.weight"]}, tmp_path / "w.safetensors")
    content = read_weights(tmp_path / "w.safetensors")
    assert set(content) == {"model"} and torch.equal(
        content["model"]["a.weight"], state["a.weight"]
    )


def test_other_names_of_files_are_refused(tmp_path, state):
    with pytest.raises(ValueError, match=r"w\.onnx.*\.safetensors or \.pth"):
        save_weights(tmp_path / "w.onnx", state)


@pytest.mark.parametrize("call", [read_weights, lambda path: save_weights(path, {})])
def test_without_safetensors_the_way_to_get_it_is_told(tmp_path, monkeypatch, call):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(weights_module.importlib, "import_module", absent)
    with pytest.raises(ImportError, match=r"w\.safetensors' needs .* pip install safetensors"):
        call(tmp_path / "w.safetensors")


class Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".pyth", ".safetensors", ".bin"])
def test_a_malicious_file_cannot_run_code(tmp_path, suffix, legacy, request):
    if suffix == ".safetensors":
        request.getfixturevalue("safetensors")
    path, trace = tmp_path / f"w{suffix}", tmp_path / "run"
    content = {"model": {"a": torch.ones(1)}, "model_state": {}, "evil": Evil(trace)}
    if suffix == ".pkl":
        content["model"]["a"] = np.ones(1)
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert not trace.exists()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    if suffix != ".safetensors":
        assert f"'{os.mkdir.__module__}.mkdir'" in str(caught.value)
        assert "save_weights" in str(caught.value)


def test_other_objects_are_named_with_the_way_out(tmp_path):
    args = argparse.Namespace(lr=1)
    torch.save({"model": {}, "args": args}, tmp_path / "w.pth")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {"a": torch.ones(1)}}))
    with pytest.raises(WeightsError, match=r"'argparse.Namespace'.*weights_only=False"):
        read_weights(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"'torch\._utils\._rebuild_tensor_v2'.*pickle\.load"):
        read_weights(tmp_path / "w.pkl")


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".pyth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 cut short"])
def test_broken_files_are_named(tmp_path, suffix, content, request):
    if suffix == ".safetensors":
        request.getfixturevalue("safetensors")
    (tmp_path / f"w{suffix}").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"w{suffix}' is no file of weights, or broken: \S"):
        read_weights(tmp_path / f"w{suffix}")


def test_nobody_is_told_to_load_a_picture_with_code_in_it(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(WeightsError, match=r"w\.pth' is no file of weights") as caught:
        weights_module.read_torch(str(tmp_path / "w.pth"))
    assert "weights_only" not in str(caught.value)


def test_a_missing_file_stays_a_missing_file(tmp_path):
    for suffix in (".pth", ".pkl"):
        with pytest.raises(FileNotFoundError):
            read_weights(tmp_path / f"w{suffix}")


def test_what_is_not_a_dict_is_refused(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "w.pth")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(np.ones(1)))
    for name in ("w.pth", "w.pkl"):
        with pytest.raises(WeightsError, match=r"holds a (list|ndarray), not tensors by name"):
            read_weights(tmp_path / name)


def test_the_three_kinds_of_zoo_pickles_are_told_apart(tmp_path):
    def read(content):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, 2))
        return read_zoo_file(str(tmp_path / "w.pkl"))

    ours = {"model": {"a": np.ones(1)}, "__author__": "Detectron2 Model Zoo"}
    assert read(ours) == ours
    caffe2 = {"conv1_w": np.ones(1), "conv1_w_momentum": np.ones(1)}
    for content in (caffe2, {"blobs": caffe2, "cfg": "yaml"}):
        assert read(content) == {
            "model": {"conv1_w": np.ones(1)},
            "__author__": "Caffe2",
            "matching_heuristics": True,
        }


def test_pycls_files_are_read_as_detectron2_does(tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer

    path = str(tmp_path / "w.pyth")
    model_state = OrderedDict(
        {"s1.weight": torch.ones(1), "s1.bn.num_batches_tracked": torch.ones(1)}
    )
    torch.save({"model_state": model_state, "epoch": 3}, path)
    assert read_zoo_file(path) == DetectionCheckpointer(torch.nn.Linear(1, 1))._load_file(path)
    torch.save({"model": model_state}, path)
    with pytest.raises(WeightsError, match="model_state"):
        read_zoo_file(path)


def test_numpy_numbers_become_pythons_everywhere():
    given = {"a": np.float64(0.5), "b": [np.int64(2), (np.bool_(True),)], "c": OrderedDict(d="x")}
    given["c"]._metadata = {"version": 2}
    plain = plain_types(given)
    assert plain == {"a": 0.5, "b": [2, (True,)], "c": {"d": "x"}}
    found = [type(plain["a"]), type(plain["b"][0]), type(plain["b"][1][0])]
    assert found == [builtins.float, builtins.int, builtins.bool]
    assert type(plain["c"]) is OrderedDict and plain["c"]._metadata == {"version": 2}
    assert type(given["a"]) is np.float64  # the caller's own is left alone


@pytest.mark.parametrize(
    "tensor, words",
    [
        (torch.zeros(1).expand(10**11), r"'model\.x' of the shape \(100000000000,\)"),
        (torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (10**10,)), "kind sparse_coo"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "kind nested"),
        (torch.empty(10**11, device="meta"), "weights"),
    ],
    ids=["expanded", "sparse", "nested", "meta"],
)
def test_tensors_that_are_not_in_the_file_are_refused_before_memory_is_taken(
    tmp_path, tensor, words
):
    path = tmp_path / "w.pth"
    torch.save({"model": {"good": torch.ones(2), "x": tensor}}, path)
    with pytest.raises(WeightsError, match=words):
        read_weights(path)


def test_a_small_expanded_tensor_is_read(tmp_path):
    torch.save({"model": {"x": torch.ones(1).expand(8)}}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth")["model"]["x"].tolist() == [1.0] * 8
