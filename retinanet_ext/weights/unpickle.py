"""Read pickled weights without running what the file asks for.

A pickle is a program: it names Python objects and calls them. Here the names are looked up in a
short table, and everything that numpy's own pickles call is done by functions of this module, so
that a file holds numbers and text in Python's containers, or is refused.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from ..errors import UserError

_DTYPE_CODE = re.compile(r"[<>|=]?(?:[biufc][0-9]{1,2}|[SU][0-9]+)")


class UnsafePickleError(UserError, pickle.UnpicklingError):
    """A pickle asks for something that is not in the table.

    Attributes:
        name: what it asks for, such as ``"posix.system"``.
    """

    def __init__(self, name: str):
        super().__init__(f"it asks for the Python object '{name}'")
        self.name = name


def read_pickle(file: IO[bytes]) -> Any:
    """Read numpy arrays and scalars in Python containers.

    The file may be of Python 2 or 3 and of any numpy. Text of Python 2 is taken as Latin-1, as
    Detectron2 does. Arrays come writable, in the machine's byte order, with numbers or text as
    elements.

    Raises:
        UnsafePickleError: the file asks for any other Python object.
        pickle.UnpicklingError: it is broken, or holds an array of Python objects.
    """
    try:
        return _resolve(_Unpickler(file, encoding="latin1").load(), {})
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a broken pickle can fail in any way
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _TABLE.get((module, name))
        if found is None:
            raise UnsafePickleError(f"{module}.{name}")
        return found


class _Fixed:
    """Base of what the table holds and what its functions return: a pickle can change neither."""

    __slots__ = ("__weakref__",)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"it sets {name} of {type(self).__name__}")


class _Function(_Fixed):
    """Stands for a function or class that a pickle calls."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]):
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


class _Dtype(_Fixed):
    """Stands for a numpy.dtype while a pickle is read."""

    __slots__ = ("dtype",)
    dtype: np.dtype

    def __init__(self, code: str, align: Any = False, copy: Any = True):
        if not isinstance(code, str) or not _DTYPE_CODE.fullmatch(code):
            raise pickle.UnpicklingError(f"it holds an array of dtype {code!r}, not of numbers")
        object.__setattr__(self, "dtype", np.dtype(code))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags): the first two are
        # all that a dtype of numbers or text needs, and numpy would believe the rest.
        object.__setattr__(self, "dtype", self.dtype.newbyteorder(state[1]))

    def read(self, buffer: Any) -> np.ndarray:
        """The elements in ``buffer``, (n,), writable and in the machine's byte order."""
        raw = buffer.encode("latin1") if isinstance(buffer, str) else buffer
        return np.frombuffer(raw, self.dtype).astype(self.dtype.newbyteorder("="))


class _Array(_Fixed):
    """Stands for a numpy.ndarray while a pickle is read."""

    __slots__ = ("array",)
    array: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, buffer = state
        self._set(buffer, dtype, shape, "F" if is_fortran else "C")

    def _set(self, buffer: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> _Array:
        array = dtype.read(buffer).reshape(shape, order="F" if order == "F" else "C")
        object.__setattr__(self, "array", array)
        return self


def _from_buffer(buffer: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    return _Array()._set(buffer, dtype, shape, order)


def _scalar(dtype: _Dtype, buffer: Any) -> Any:
    return dtype.read(buffer)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise UnsafePickleError(f"_codecs.encode with {encoding}")
    return text.encode("latin1")


def _empty(kind: type) -> Callable[[], Any]:
    # Not the type itself: bytes(10**12) would fill the memory.
    return lambda: kind()


def _table() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("numpy", "ndarray"): "ndarray",  # only ever an argument
        ("numpy", "dtype"): _Function(_Dtype),
        ("_codecs", "encode"): _Function(_encode),
    }
    for builtins in ("builtins", "__builtin__"):  # the second of Python 2
        table.update({(builtins, kind.__name__): kind for kind in (dict, list, tuple)})
        table.update({(builtins, kind.__name__): kind for kind in (set, frozenset)})
        table.update({(builtins, k.__name__): _Function(_empty(k)) for k in (bytes, bytearray)})
    for core in ("numpy.core", "numpy._core"):  # the second since numpy 2
        table[f"{core}.multiarray", "_reconstruct"] = _Function(lambda *args: _Array())
        table[f"{core}.multiarray", "scalar"] = _Function(_scalar)
        table[f"{core}.numeric", "_frombuffer"] = _Function(_from_buffer)
    return table


_TABLE = _table()


def _resolve(value: Any, known: dict[int, Any]) -> Any:
    """``value`` with arrays in place of what stands for them; ``known`` results are by id."""
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, _Array):
        result: Any = value.array
    elif isinstance(value, dict):
        items = dict.items(value)  # a pickle may have given an OrderedDict attributes
        result = type(value)((_resolve(k, known), _resolve(v, known)) for k, v in items)
    elif isinstance(value, (list, tuple, set, frozenset)):
        result = type(value)(_resolve(x, known) for x in value)
    elif isinstance(value, (_Fixed, type)):
        raise pickle.UnpicklingError("it holds a class or a function")
    else:
        return value
    known[id(value)] = result
    return result
