"""What a measuring process does, done in this one."""

from __future__ import annotations

import dataclasses
import io
import json
import sys

import pytest

from retinanet_ext.benchmark import worker
from retinanet_ext.benchmark.measure import Peak
from retinanet_ext.benchmark.tasks.build import MEMORY_WORKS, MemoryWork
from retinanet_ext.benchmark.worker import main, measure


@pytest.mark.parametrize("name", sorted(MEMORY_WORKS))
def test_every_work_can_be_built_and_run_by_both_sides(settings, name):
    for side in ("detectron2", "retinanet_ext"):
        MEMORY_WORKS[name].build(settings.tiny(), side)()


def test_work_is_run_on_something_tiny_first_and_then_measured(settings, monkeypatch):
    built: list[tuple[int, int]] = []

    def build(chosen, side):
        assert side == "ours"
        built.append(chosen.size)
        return lambda: built.append((0, 0))

    monkeypatch.setitem(MEMORY_WORKS, "fake", MemoryWork(build, warm_ups=1))
    measure("fake", "ours", dataclasses.replace(settings, size=(320, 320)))
    assert built == [(64, 64), (0, 0), (320, 320), (0, 0), (0, 0)]


def test_loss_of_detectron2_takes_several_times_the_logits(settings):
    big = dataclasses.replace(settings.with_classes(40), size=(256, 256), batch=2)
    logits = 4 * 2 * 40 * 9 * (32**2 + 16**2 + 8**2 + 4**2 + 2**2)
    theirs = measure("loss", "detectron2", big).num_bytes
    ours = measure("loss", "retinanet_ext", big).num_bytes
    assert theirs > 4 * logits and ours < theirs / 2, (theirs / logits, ours / logits)


def test_order_and_answer_are_json(settings, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(worker, "measure", lambda *order: asked.append(order) or Peak(7, "m"))
    order = {"name": "loss", "side": "detectron2", "settings": settings.to_json()}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(order)))
    main()
    assert asked == [("loss", "detectron2", settings)]
    assert json.loads(capsys.readouterr().out) == {"num_bytes": 7, "method": "m"}
