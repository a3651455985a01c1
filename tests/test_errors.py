"""Suggestions in error messages."""

from __future__ import annotations

from retinanet_ext.errors import did_you_mean


def test_suggests_the_closest_name_whatever_its_case():
    assert "'Alpha'" in did_you_mean("alpah", ["Alpha", "Beta"])


def test_stays_silent_when_nothing_is_close():
    assert did_you_mean("zzz", ["alpha"]) == ""
