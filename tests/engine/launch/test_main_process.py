"""What the main process does reaches the others, errors included."""

import pytest

from retinanet_ext.engine.launch import main_process
from retinanet_ext.engine.launch.main_process import on_main_process


def test_user_errors_of_the_main_process_reach_all(monkeypatch):
    def fail():
        raise FileNotFoundError("no data")

    with pytest.raises(FileNotFoundError, match="no data"):
        on_main_process(fail)
    # Another process runs nothing, and hears of the error.
    monkeypatch.setattr(main_process.comm, "is_main_process", lambda: False)
    monkeypatch.setattr(
        main_process.comm, "all_gather", lambda mine: [(None, ValueError("bad")), mine]
    )
    with pytest.raises(ValueError, match="bad"):
        on_main_process(fail)


def test_a_result_of_the_main_process_reaches_all(monkeypatch):
    assert on_main_process(lambda: 3) == 3
    monkeypatch.setattr(main_process.comm, "is_main_process", lambda: False)
    monkeypatch.setattr(main_process.comm, "all_gather", lambda mine: [(4, None), mine])
    assert on_main_process(lambda: pytest.fail("must not run here")) == 4
