# ruff: noqa: RUF001 (the paper's symbols in the labels)
"""The focal loss paper's tables: published numbers, the config of every row, the command."""

from __future__ import annotations

import dataclasses
import json

import pytest
import yaml
from focal_loss_paper import rows, runs
from focal_loss_paper.rows import Setting, build_cfg, default_base, load_tables
from reproduce import main

from retinanet_ext.config import validate_cfg
from retinanet_ext.modeling.criteria.box import build_box_loss
from retinanet_ext.registry import CLS_LOSS_REGISTRY
from tests.helpers.tiny import write_dataset

TABLES = load_tables()
CONFIGS = sorted({row.config for table in TABLES.values() for row in table.rows})
QUICKSTART = Setting("quickstart", default_base("quickstart"), 490)


# Published numbers


def test_published_tables_are_complete():
    content = json.loads(rows.PUBLISHED.read_text(encoding="utf-8"))
    counts = {name: len(table["rows"]) for name, table in content["tables"].items()}
    assert counts == {"1a": 9, "1b": 7, "1c": 7, "1d": 10, "1e": 10, "2": 9, "3": 4}
    assert "1708.02002" in content["source"]["url"]
    for name, table in content["tables"].items():
        assert table["split"] == ("test-dev" if name in ("1e", "2") else "minival")
        for row in table["rows"]:
            if row["label"].startswith("CE, π"):  # what the text says, not the table
                continue
            assert row["AP75"] <= row["AP"] + 4 and row["AP"] <= row["AP50"], row
            assert ("APs" in row) == (name in ("1e", "2")) and ("ms" in row) == (name == "1e")


def test_published_best_rows_are_the_papers():
    best = {}
    for name in ("1a", "1b", "1c", "1d", "1e"):
        top = max(TABLES[name].rows, key=lambda row: row.published.get("AP", -1.0))
        best[name] = (top.config, top.published["AP"])
    assert best == {
        "1a": ("1a_alpha0.75", 31.1),
        "1b": ("1b_gamma2", 34.0),
        "1c": ("1c_scales2_ratios3", 34.2),
        "1d": ("1d_fl", 36.0),
        "1e": ("1e_R101_800", 37.8),
    }
    assert [row.diverged for row in TABLES["1a"].rows] == [True] + [False] * 8


# AP, AP50 and AP75, added up from the paper's tables rather than from published.json.
COLUMN_SUMS = {
    "1a": (186.9, 250.9, 165.8),
    "1b": (227.2, 355.8, 242.2),
    "1c": (228.4, 358.4, 242.6),
    "1d": (304.3, 462.7, 325.0),
    "1e": (345.3, 533.0, 370.8),
    "3": (132.8, 206.4, 142.2),
}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_published_columns_have_the_papers_sums(name: str):
    published = [row.published for row in TABLES[name].rows]
    sums = [sum(x.get(key, 0) for x in published) for key in ("AP", "AP50", "AP75")]
    assert sums == pytest.approx(COLUMN_SUMS[name])


# Configs


def test_every_config_file_belongs_to_a_row():
    files = {path.stem for path in rows.CONFIGS.glob("*.yaml")}
    assert files - set(CONFIGS) == {"Base-R_50_FPN_600", "Base-R_101_FPN_600"}
    assert set(CONFIGS) <= files


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("dataset", ["quickstart", "coco_2017"])
def test_rows_merge_and_validate_and_build_their_loss(config: str, dataset: str):
    cfg = build_cfg(config, Setting(dataset, default_base(dataset), 1000))
    validate_cfg(cfg)
    CLS_LOSS_REGISTRY.get(cfg.MODEL.RETINANET.CLS_LOSS)(cfg)
    build_box_loss(cfg)
    assert (f"{dataset}_train",) == cfg.DATASETS.TRAIN
    assert (5 if dataset == "quickstart" else 80) == cfg.MODEL.RETINANET.NUM_CLASSES
    assert cfg.SOLVER.MAX_ITER == 1000
    own = rows.own_keys(rows.CONFIGS / f"{config}.yaml")["MODEL"].get("RETINANET", {})
    assert own.items() <= cfg.MODEL.RETINANET.items()


def test_papers_setting_has_its_schedule_and_scale():
    cfg = build_cfg("1b_gamma2", Setting("coco_2017"))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (90000, (60000, 80000))
    assert (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST) == ((600,), 600)
    assert cfg.MODEL.RESNETS.DEPTH == 50
    assert build_cfg("1d_fl", Setting("coco_2017")).MODEL.RESNETS.DEPTH == 101


def test_schedule_scales_with_the_iterations():
    cfg = build_cfg("1b_gamma2", Setting("coco_2017", iterations=900))
    assert cfg.SOLVER.STEPS == (600, 800)
    assert cfg.SOLVER.WARMUP_ITERS == 90
    assert cfg.SOLVER.CHECKPOINT_PERIOD <= 225


def test_depth_and_scale_are_relative_to_a_small_base():
    small = {c: build_cfg(c, QUICKSTART) for c in ("1e_R50_600", "1e_R101_600", "1e_R50_800")}
    base, deep, large = small.values()
    assert [cfg.MODEL.RESNETS.DEPTH for cfg in (base, deep, large)] == [18, 34, 18]
    assert base.INPUT.MIN_SIZE_TRAIN == (192,) and base.INPUT.MIN_SIZE_TEST == 256
    assert large.INPUT.MIN_SIZE_TRAIN == (256,) and large.INPUT.MIN_SIZE_TEST == 336
    assert not deep.MODEL.WEIGHTS and deep.MODEL.RESNETS.RES2_OUT_CHANNELS == 64


def test_command_line_keys_come_last():
    setting = Setting("quickstart", default_base("quickstart"), 20, ("SOLVER.BASE_LR", "0.5"))
    assert build_cfg("1a_ce", setting).SOLVER.BASE_LR == 0.5
    with pytest.raises(KeyError, match=r"SOLVER\.BASE_LRR"):
        build_cfg("1a_ce", Setting("quickstart", None, 20, ("SOLVER.BASE_LRR", "0.5")))


# One run for equal settings


def test_equal_settings_are_one_run(shared_book):
    def key(config: str) -> str:
        return shared_book.run(config, 1).folder.parent.name

    assert key("1a_alpha0.75") == key("1b_gamma0") == key("3_ce")
    assert key("1b_gamma2") == key("1c_scales3_ratios3") == key("1d_fl") == key("1e_R50_600")
    folders = {key(config) for config in CONFIGS}
    assert len(folders) == len(CONFIGS) - 2 - 4


def test_runs_are_listed_once_and_first_seeds_first(shared_book):
    listed = shared_book.runs([TABLES["1a"], TABLES["1b"]], seeds=2)
    assert len(listed) == 2 * (9 + 6)
    assert [run.seed for run in listed] == [1] * 15 + [2] * 15


def test_single_rows_can_be_chosen(shared_book):
    runs = shared_book.runs([TABLES["1b"]], seeds=2, rows=["1b_gamma2"])
    assert [run.name for run in runs] == ["1b_gamma2 seed 1", "1b_gamma2 seed 2"]
    with pytest.raises(ValueError, match=r"--row is '1a_alpha0\.25'; the tables have 1b_gamma0"):
        shared_book.runs([TABLES["1b"]], seeds=1, rows=["1a_alpha0.25"])


def test_hash_sees_what_matters_and_only_that():
    settings = {"SOLVER.MAX_ITER": 10, "MODEL.DEVICE": "cpu", "DATASETS.TRAIN": ["a_train"]}
    key = runs.settings_hash(settings)
    assert runs.settings_hash({**settings, "MODEL.DEVICE": "cuda", "OUTPUT_DIR": "x"}) == key
    assert runs.settings_hash({**settings, "SOLVER.MAX_ITER": 11}) != key
    assert runs.settings_hash({**settings, "DATASETS.TRAIN": ["b_train"]}) != key


# The command


def test_list_shows_what_is_done(filled, capsys):
    folder = filled.runs_folder.parent
    # The command adds the dataset's name to its folder.
    folder.rename(folder.with_name("quickstart"))
    arguments = ["--table", "1b", "--seeds", "2", "--iters", "490", "--list"]
    assert main([*arguments, "--output-dir", str(folder.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 14
    assert sum(line.startswith("finished") for line in lines) == 3
    assert sum(line.startswith("diverged") for line in lines) == 1


def test_mistakes_are_one_sentence(tmp_path, capsys):
    arguments = ["--list", "--output-dir", str(tmp_path)]
    assert main([*arguments, "--dataset", "nowhere"]) == 2
    assert "nowhere_train" in capsys.readouterr().err
    assert main([*arguments, "--train-net", str(tmp_path / "no.py")]) == 2
    assert "--train-net" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "SEED", "3"])
    assert "--seeds" in capsys.readouterr().err


TRAIN_NET = """
import json, pathlib, sys
from retinanet_ext.data.datasets.register import register_coco_dataset
root = pathlib.Path(__file__).parent / "bccd"
for split in ("train", "val"):
    json_file = root / "annotations" / f"instances_{split}.json"
    register_coco_dataset(f"mine_{split}", json_file, root / split)
if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[sys.argv.index("--config-file") + 1]).parent
    assert "--resume" in sys.argv
    (folder / "metrics.json").write_text(json.dumps({"bbox/AP": 40.0}))
"""


def test_own_dataset_is_trained_through_an_own_train_net(tmp_path, monkeypatch, capsys):
    write_dataset(tmp_path)
    (tmp_path / "my_train_net.py").write_text(TRAIN_NET)
    rows_of_3 = load_tables()["3"].rows[2:]
    table = dataclasses.replace(load_tables()["3"], rows=rows_of_3)
    monkeypatch.setattr("reproduce.load_tables", lambda: {"3": table})
    monkeypatch.setattr("focal_loss_paper.report.write_figures", lambda *args: None)
    arguments = ["--dataset", "mine", "--seeds", "1", "--jobs", "2", "--iters", "90"]
    arguments += ["--train-net", str(tmp_path / "my_train_net.py")]
    assert main([*arguments, "--output-dir", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count(": AP 40.0 in") == 2
    config = next((tmp_path / "out/mine/runs").glob("3_flstar_gamma2*/seed1/run.yaml"))
    content = yaml.safe_load(config.read_text())
    assert content["MODEL"]["RETINANET"]["NUM_CLASSES"] == 3
    assert content["DATASETS"]["TRAIN"] == ["mine_train"]
    assert content["SOLVER"]["STEPS"] == [60, 80] and content["SEED"] == 1
    text = (tmp_path / "out/mine/tables.md").read_text()
    assert "| FL*, γ = 2, β = 1 | **40.0** | - | - | 1 | 33.8 |" in text
