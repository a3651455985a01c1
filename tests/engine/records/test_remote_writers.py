"""Weights & Biases and MLflow, by stand-ins that keep what they are sent in files."""

from __future__ import annotations

import json
import logging
import math
import sys
from pathlib import Path

import pytest
from detectron2.utils.events import EventStorage

from retinanet_ext import get_cfg, validate_cfg
from retinanet_ext.config.keys import KEYS
from retinanet_ext.engine.records.remote_writers import (
    _KINDS,
    build_remote_writers,
    check_remote_writers,
)

REMOTE_WRITERS = KEYS["WRITERS"].choices

# Each keeps what a server would in $FAKE_SERVER/<run id>.json: rows of [step, scalars].
FAKE_WANDB = """
import json, os, pathlib
offline = False
class Run:
    def __init__(self, id, resume, project, name, dir, config):
        if offline:
            raise ConnectionError("no network")
        assert resume == "allow" and config["MODEL"]["RETINANET"]["NUM_CLASSES"] == 80
        self.file = pathlib.Path(os.environ["FAKE_SERVER"], id + ".json")
        old = json.loads(self.file.read_text()) if self.file.exists() else {"rows": []}
        self.state = {**old, "project": project, "name": name, "dir": dir, "open": True}
        self.step = max([row[0] + 1 for row in old["rows"]], default=0)
        self.save()
    def save(self):
        self.file.write_text(json.dumps(self.state))
    def log(self, scalars, step):
        if offline:
            raise ConnectionError("no network")
        assert step >= self.step, "W&B drops these with a warning"
        self.step = step + 1
        self.state["rows"].append([step, scalars])
        self.save()
    def finish(self):
        self.state["open"] = False
        self.save()
def init(**options):
    return Run(**options)
"""
FAKE_MLFLOW = """
import json, os, pathlib, re, types
offline = False
state, file = None, None
experiment = None
def save():
    file.write_text(json.dumps(state))
def set_experiment(name):
    global experiment
    experiment = name
def start_run(run_id=None, run_name=None):
    global state, file
    if offline:
        raise ConnectionError("no network")
    server = pathlib.Path(os.environ["FAKE_SERVER"])
    id = run_id or f"run{len(list(server.iterdir()))}"
    file = server / (id + ".json")
    if run_id is None:
        state = {"rows": [], "project": experiment, "name": run_name}
    else:
        state = json.loads(file.read_text())
    state["open"] = True
    save()
    latest = {}
    for _, row in state["rows"]:
        latest.update(row)
    return types.SimpleNamespace(
        info=types.SimpleNamespace(run_id=id), data=types.SimpleNamespace(metrics=latest)
    )
def log_text(text, name):
    assert "NUM_CLASSES: 80" in text and name == "config.yaml"
def log_metrics(metrics, step):
    if offline:
        raise ConnectionError("no network")
    assert all(re.fullmatch(r"[\\w\\-. /]+", name) for name in metrics)
    iteration = metrics.pop("iteration")
    assert iteration == step
    state["rows"].append([step, metrics])
    state["rows"][-1][1]["iteration"] = step
    save()
def end_run():
    state["open"] = False
    save()
"""


@pytest.fixture(params=REMOTE_WRITERS)
def service(request, tmp_path, monkeypatch):
    """The name of one of the packages, of which there are stand-ins."""
    package = request.param
    (tmp_path / "site").mkdir()
    (tmp_path / "server").mkdir()
    for name, text in (("wandb", FAKE_WANDB), ("mlflow", FAKE_MLFLOW)):
        (tmp_path / "site" / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("FAKE_SERVER", str(tmp_path / "server"))
    yield package
    for name in REMOTE_WRITERS:
        sys.modules.pop(name, None)


def config(tmp_path: Path, names: list[str]):
    cfg = get_cfg()
    cfg.WRITERS, cfg.OUTPUT_DIR = names, str(tmp_path / "balls" / "first")
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    return cfg


def train(cfg, written: int | None, iterations: range, close: bool = True) -> None:
    """Write once per iteration, of a new run or one that goes on after ``written``."""
    writers = build_remote_writers(cfg)
    for writer in writers:
        writer.start(written)
    with EventStorage(0) as storage:
        for iteration in iterations:
            storage.iter = iteration
            storage.put_scalar("AP-a (b)", float(iteration), smoothing_hint=False)
            for writer in writers:
                writer.write()
    for writer in writers if close else ():
        writer.close()


def sent(tmp_path: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted((tmp_path / "server").iterdir())]


def test_a_resumed_run_continues_the_same_remote_run_without_doubles(tmp_path, service):
    cfg = config(tmp_path, [service])
    train(cfg, None, range(7), close=False)  # killed: 5 and 6 come again
    train(cfg, 4, range(5, 9))
    (run,) = sent(tmp_path)
    assert [step for step, _ in run["rows"]] == list(range(9))
    assert run["rows"][3][1][{"wandb": "AP-a (b)", "mlflow": "AP-a _b_"}[service]] == 3.0
    assert (run["project"], run["name"], run["open"]) == ("balls", "first", False)


def test_a_new_run_in_the_same_folder_is_a_new_remote_run(tmp_path, service):
    cfg = config(tmp_path, [service])
    train(cfg, None, range(2))
    train(cfg, None, range(3))
    assert sorted(len(run["rows"]) for run in sent(tmp_path)) == [2, 3]
    assert list(json.loads(Path(cfg.OUTPUT_DIR, "remote_runs.json").read_text())) == [service]


def test_two_services_keep_their_runs_apart(tmp_path, service):
    cfg = config(tmp_path, list(REMOTE_WRITERS))
    train(cfg, None, range(3))
    train(cfg, 1, range(2, 5))
    assert [[step for step, _ in run["rows"]] for run in sent(tmp_path)] == [[0, 1, 2, 3, 4]] * 2


def test_names_from_the_environment_go_first(tmp_path, service, monkeypatch):
    for key in ("WANDB_PROJECT", "WANDB_NAME", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(key, "mine")
    monkeypatch.setenv("MLFLOW_RUN_NAME", "mine")
    train(config(tmp_path, [service]), None, range(1))
    (run,) = sent(tmp_path)
    # None: the package then reads the variable itself.
    assert run["project"] is None and run["name"] in (None, "mine")


def test_a_new_run_without_its_service_is_an_error_and_a_resumed_one_goes_on(
    tmp_path, service, caplog
):
    cfg = config(tmp_path, [service])
    module = __import__(service)
    module.offline = True
    with pytest.raises(RuntimeError, match=f"{service} cannot open a run: .*no network"):
        train(cfg, None, range(1))
    with caplog.at_level(logging.INFO):
        train(cfg, 4, range(5, 7))
    assert f"training continues without {service}" in caplog.text and sent(tmp_path) == []


def test_an_id_that_cannot_be_kept_stops_nothing(tmp_path, service, caplog):
    cfg = config(tmp_path, [service])
    cfg.OUTPUT_DIR = str(tmp_path / "balls" / "no folder")
    train(cfg, None, range(2))
    assert len(sent(tmp_path)[0]["rows"]) == 2
    assert f"a resumed run will open another run of {service}" in caplog.text


def test_an_error_while_training_is_an_oserror_and_what_waited_is_sent_later(tmp_path, service):
    (writer,) = build_remote_writers(config(tmp_path, [service]))
    module = __import__(service)
    writer.start(None)
    with EventStorage(3) as storage:
        storage.put_scalars(loss=math.nan)
        module.offline = True
        with pytest.raises(OSError, match="no network"):
            writer.write()
        module.offline = False
        writer.write()
        writer.write()
    writer.close()
    writer.close()
    assert [step for step, _ in sent(tmp_path)[0]["rows"]] == [3]


def test_a_missing_package_is_an_error_that_says_what_to_install(tmp_path, monkeypatch):
    cfg = config(tmp_path, ["wandb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"WRITERS has 'wandb'.*pip install wandb"):
        check_remote_writers(cfg)
    cfg.WRITERS = []
    assert build_remote_writers(cfg) == []


def test_unknown_names_are_found_when_the_config_is_checked(tmp_path):
    cfg = config(tmp_path, ["mlflow", "wandb"])
    assert validate_cfg(cfg) == []
    cfg.WRITERS = ["wandbb"]
    with pytest.raises(ValueError, match="Did you mean 'wandb'"):
        validate_cfg(cfg)
    for wrong in ("wandb", ["wandb", "wandb"]):
        cfg.WRITERS = wrong
        with pytest.raises(ValueError, match="WRITERS is"):
            validate_cfg(cfg)
    assert tuple(_KINDS) == REMOTE_WRITERS
