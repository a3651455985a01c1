"""Suggestions in error messages."""

from __future__ import annotations

import errno
import pickle

import pytest

from retinanet_ext.data.loading.bad_images import BadImageError
from retinanet_ext.engine.checkpoint.hook import CheckpointError
from retinanet_ext.engine.evaluating.best_metric import MetricError
from retinanet_ext.engine.failures.nonfinite import NonFiniteLoss
from retinanet_ext.engine.failures.reports import MachineError
from retinanet_ext.engine.launch.launching import LaunchError
from retinanet_ext.errors import (
    ConfigError,
    ExistsError,
    FileError,
    InputError,
    MissingFileError,
    MissingPackageError,
    TrainingFailed,
    UserError,
    did_you_mean,
    listed,
    one_line,
    shown_error,
)
from retinanet_ext.weights.reading import WeightsError
from retinanet_ext.weights.unpickle import UnsafePickleError


def test_suggests_the_closest_name_whatever_its_case():
    assert "'Alpha'" in did_you_mean("alpah", ["Alpha", "Beta"])


def test_stays_silent_when_nothing_is_close():
    assert did_you_mean("zzz", ["alpha"]) == ""


def test_errors_of_the_user_are_the_builtins_they_are_by_nature():
    error = ConfigError("config key 'A' does not exist")
    assert isinstance(error, UserError) and isinstance(error, KeyError)
    assert str(error) == "config key 'A' does not exist"  # no repr, as KeyError has by itself
    assert isinstance(TrainingFailed("x"), RuntimeError) and not isinstance(error, TrainingFailed)
    assert (UserError.exit_code, TrainingFailed.exit_code) == (2, 1)


def test_long_lists_say_how_many_are_left_out():
    assert listed(["a", "b", "c"], most=3) == "a, b, c"
    assert listed(["a", "b", "c", "d"], most=2) == "a, b and 2 more"
    assert listed([]) == ""


def test_a_message_is_one_line_and_never_empty():
    assert one_line(ValueError("two\n  lines")) == "two lines"
    assert one_line(KeyError("no repr")) == "no repr"
    assert one_line(AssertionError()) == "AssertionError"


@pytest.mark.parametrize(
    "kind, parents",
    [
        (ConfigError, (UserError, KeyError)),
        (InputError, (UserError, ValueError)),
        (FileError, (UserError, OSError)),
        (MissingFileError, (UserError, FileNotFoundError)),
        (ExistsError, (UserError, FileExistsError)),
        (MissingPackageError, (UserError, ImportError)),
        (BadImageError, (UserError, ValueError)),
        (WeightsError, (UserError, ValueError)),
        (MetricError, (UserError, ValueError)),
        (CheckpointError, (TrainingFailed, OSError)),
        (NonFiniteLoss, (TrainingFailed, FloatingPointError)),
        (MachineError, (TrainingFailed, RuntimeError)),
        (LaunchError, (TrainingFailed, RuntimeError)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_error_is_ours_and_a_builtin_and_travels_between_processes(kind, parents):
    error = pickle.loads(pickle.dumps(kind("what, and what can be done")))
    assert type(error) is kind and all(isinstance(error, parent) for parent in parents)
    assert str(error) == "what, and what can be done"
    assert shown_error(error) is error


def test_an_unsafe_pickle_is_the_users_to_know():
    assert issubclass(UnsafePickleError, UserError)
    assert issubclass(UnsafePickleError, pickle.UnpicklingError)


def test_an_error_of_a_file_has_its_number_but_does_not_show_it():
    error = FileError(errno.EACCES, "cannot write x")
    assert error.errno == errno.EACCES and str(error) == "cannot write x"


@pytest.mark.parametrize(
    "error, message",
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "'a/b': Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
)
def test_plain_errors_of_files_become_a_sentence(error, message):
    shown = shown_error(error)
    assert isinstance(shown, UserError) and str(shown) == message


@pytest.mark.parametrize("bug", [ValueError("a b"), KeyError("a b"), OSError("a b"), TypeError()])
def test_everything_else_is_a_bug(bug):
    assert shown_error(bug) is None
