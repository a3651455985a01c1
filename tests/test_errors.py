"""Suggestions in error messages."""

from __future__ import annotations

from retinanet_ext.errors import (
    ConfigError,
    TrainingFailed,
    UserError,
    did_you_mean,
    listed,
    one_line,
)


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
