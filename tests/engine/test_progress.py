"""The progress line, against lines worked out by hand, and the progress bar."""

import logging

import pytest
import torch
from detectron2.utils.events import EventStorage

from retinanet_ext.engine import progress
from retinanet_ext.engine.progress import BarOverLoader, ProgressLine, with_bar


@pytest.fixture(autouse=True)
def without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def put_iteration(storage, seconds=0.5, data_seconds=0.1, cls=0.25, box=0.5):
    """What trainer, timer and schedule put into the storage in one iteration."""
    storage.put_scalars(data_time=data_seconds, total_loss=cls + box)
    storage.put_scalars(loss_cls=cls, loss_box_reg=box)
    storage.put_scalar("lr", 0.01, smoothing_hint=False)
    storage.put_scalar("time", seconds)


def test_line_shows_everything_once():
    with EventStorage(119) as storage:
        put_iteration(storage)
        line = ProgressLine(max_iter=400, images_per_iter=8).format_line(storage)
    # 280 iterations of 0.5 s are left; 8 images in 0.5 s; 0.1 s of 0.5 s waiting.
    assert line == (
        "iter 120/400 (30%)  eta 0:02:20  loss 0.75 (cls 0.25 box_reg 0.5)  lr 1.0e-02  "
        "16 img/s  data 20%"
    )


def test_line_before_the_first_timing_has_no_speed():
    with EventStorage(0) as storage:
        storage.put_scalars(total_loss=2.0)
        line = ProgressLine(max_iter=10, images_per_iter=8).format_line(storage)
    assert line == "iter 1/10 (10%)  loss 2"


def test_speed_follows_the_window_and_eta_a_longer_mean():
    with EventStorage(0) as storage:
        for step in range(40):
            storage.iter = step
            put_iteration(storage, seconds=1.0 if step < 20 else 3.0)
        line = ProgressLine(max_iter=50, images_per_iter=6, window=20).format_line(storage)
    # Last 20 iterations: 3 s each, so 2 img/s. All 40: 2 s each, so 20 s for the 10 left.
    assert "eta 0:00:20" in line and "2 img/s" in line


def test_losses_are_medians_over_the_window():
    with EventStorage(0) as storage:
        for step, value in enumerate((1.0, 2.0, 90.0)):
            storage.iter = step
            put_iteration(storage, cls=value, box=0.0)
        line = ProgressLine(max_iter=10, images_per_iter=1).format_line(storage)
    assert "loss 2 (cls 2 box_reg 0)" in line


def test_other_writers_get_eta_and_speed():
    with EventStorage(0) as storage:
        put_iteration(storage)
        ProgressLine(max_iter=11, images_per_iter=8).write()
        latest = storage.latest()
    assert latest["eta_seconds"] == (5.0, 0)
    assert latest["images_per_second"] == (16.0, 0)


def test_nothing_is_written_after_the_last_iteration(caplog):
    line = ProgressLine(max_iter=10, images_per_iter=8)
    with caplog.at_level(logging.INFO), EventStorage(9) as storage:
        put_iteration(storage)
        line.write()
        storage.iter = 10
        line.write()
    assert [record.getMessage()[:10] for record in caplog.records] == ["iter 10/10"]


def test_bar_is_shown_on_a_terminal_only(monkeypatch):
    loader = [1, 2]
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    assert with_bar(loader, "evaluate") is loader
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(with_bar(loader, "evaluate"), BarOverLoader)
    monkeypatch.setattr(progress.comm, "is_main_process", lambda: False)
    assert with_bar(loader, "evaluate") is loader


def test_bar_passes_everything_through(capsys):
    loader = torch.utils.data.DataLoader([3, 4, 5], batch_size=1)
    bar = BarOverLoader(loader, "evaluate tiny")
    assert [int(batch) for batch in bar] == [3, 4, 5]
    assert len(bar) == 3 and bar.dataset is loader.dataset
    assert "evaluate tiny" in capsys.readouterr().err


def test_bar_holds_back_detectron2s_progress_lines_only_meanwhile(caplog):
    inference_logger = logging.getLogger(progress.DETECTRON2_INFERENCE_LOGGER)
    with caplog.at_level(logging.INFO, inference_logger.name):
        for _ in BarOverLoader([0], "evaluate"):
            inference_logger.info("Inference done 1/1.")
            inference_logger.info("Total inference time")
        inference_logger.info("Inference done later")
    assert caplog.messages == ["Total inference time", "Inference done later"]
