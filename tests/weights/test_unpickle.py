"""What a pickle may and may not hold; the references are numpy's and Python's own pickles."""

import io
import os
import pickle
import pickletools
from collections import OrderedDict

import numpy as np
import pytest
import torch

from retinanet_ext.weights.unpickle import UnsafePickleError, read_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data):
    return read_pickle(io.BytesIO(data))


def same(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        assert all(same(ours[key], theirs[key]) for key in theirs)
    elif isinstance(theirs, (list, tuple)):
        assert all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    else:
        np.testing.assert_array_equal(ours, theirs)
        assert getattr(ours, "dtype", None) == getattr(theirs, "dtype", None)
    return True


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_numbers_in_containers_come_back_as_they_were(protocol, core):
    rng = np.random.default_rng(0)
    weights = {
        "float": rng.normal(size=(2, 3, 1)).astype("float32"),
        "half": rng.normal(size=4).astype("float16"),
        "fortran": np.asfortranarray(rng.normal(size=(2, 3))),
        "int": np.arange(6),
        "bool": np.array([True, False]),
        "none": np.zeros((0, 4)),
        "zero_dim": np.array(2.5),
        "text": np.array(["ab", "c"]),
        "scalar": np.float64(0.1),
        "nested": OrderedDict(a=[1, 2.5, None, "x"], b=(b"raw", b"", True)),
        "set": {1, 2},
    }
    data = pickle.dumps({"model": weights, "__author__": "x"}, protocol)
    if core == b"numpy.core" and protocol < 4:  # these are plain text: no lengths to keep
        data = data.replace(b"numpy._core", core)
    same(read(data), pickle.loads(pickle.dumps({"model": weights, "__author__": "x"})))


def test_arrays_are_native_and_writable():
    theirs = np.arange(4).astype(">f4")
    (ours,) = read(pickle.dumps([theirs]))
    assert ours.dtype.isnative and ours.flags.writeable
    np.testing.assert_array_equal(ours, theirs)
    torch.from_numpy(ours)  # takes neither foreign byte order nor, without a warning, constants


def test_pickles_of_python_2_are_read():
    # {"fc_b": numpy.array([1.5, -2], "float32"), "name": "\xe9"}, protocol 2 of Python 2.7: bytes
    # are its plain strings.
    data = (
        b"\x80\x02}(U\x04fc_bcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\xc0?\x00\x00\x00\xc0tbU\x04nameU\x01\xe9u."
    )
    content = read(data)
    assert content["name"] == "é"
    np.testing.assert_array_equal(content["fc_b"], np.array([1.5, -2], "float32"))
    same(content, pickle.loads(data, encoding="latin1"))


def test_one_array_in_two_places_stays_one():
    array = np.ones(3)
    first, second = read(pickle.dumps([array, array]))
    assert first is second


class Evil:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("inside", [lambda x: x, lambda x: {"model": {"a": np.ones(2), "b": x}}])
def test_a_malicious_file_cannot_run_code(tmp_path, protocol, inside):
    data = pickle.dumps(inside(Evil(os.mkdir, str(tmp_path / "run"))), protocol)
    with pytest.raises(UnsafePickleError) as caught:
        read(data)
    assert caught.value.name == f"{os.mkdir.__module__}.mkdir"
    assert not (tmp_path / "run").exists()
    pickle.loads(data)
    assert (tmp_path / "run").exists()  # it does run elsewhere, so the test can fail


@pytest.mark.parametrize(
    "evil",
    [
        Evil(eval, "1"),
        Evil(getattr, {}, "keys"),
        Evil(__import__, "os"),
        Evil(np.load, "x"),
        torch.ones(2),
        torch.nn.ReLU(),
        np.random.default_rng(0),
        range(3),
        OrderedDict,  # a class, not an instance: fine for Python, but no weights
    ],
    ids=lambda x: getattr(x, "call", [type(x)])[0].__name__,
)
def test_nothing_but_numbers_is_admitted(evil):
    with pytest.raises(pickle.UnpicklingError):
        read(pickle.dumps([evil]))


@pytest.mark.parametrize(
    "array", [np.array([{}, 1], object), np.zeros(2, "i4,f4"), np.array(["2020"], "M8[D]")]
)
def test_arrays_of_anything_else_are_refused(array):
    with pytest.raises(pickle.UnpicklingError, match=r"dtype|datetime"):
        read(pickle.dumps(array))


def test_flags_of_a_dtype_are_not_believed():
    # An int64 array whose dtype claims, by flag 1, to hold pointers to Python objects.
    data = pickletools.optimize(pickle.dumps(np.arange(2) + 4096, 2))
    state = b"K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK"
    assert data.count(state + b"\x00t") == 1
    ours = read(data.replace(state + b"\x00t", state + b"\x01t"))
    assert ours.dtype == np.int64 and ours.dtype.flags == 0 and ours.tolist() == [4096, 4097]


def test_a_pickle_cannot_change_what_reads_the_next_one():
    # numpy.dtype, then BUILD with state (None, {"_function": None}): sets an attribute of it.
    data = b"\x80\x02cnumpy\ndtype\nN}X\x09\x00\x00\x00_functionNs\x86b."
    with pytest.raises(pickle.UnpicklingError, match="_function"):
        read(data)
    assert read(pickle.dumps(np.ones(1))) == np.ones(1)


@pytest.mark.parametrize("call", [(bytes, 10**12), (bytearray, 10**12)])
def test_a_short_file_cannot_fill_the_memory(call):
    with pytest.raises(pickle.UnpicklingError):
        read(pickle.dumps(Evil(*call)))


@pytest.mark.parametrize("data", [b"", b"not a pickle", pickle.dumps({"a": np.ones(9)})[:-20]])
def test_broken_files_are_told_so(data):
    with pytest.raises(pickle.UnpicklingError):
        read(data)
