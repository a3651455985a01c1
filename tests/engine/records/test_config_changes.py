"""A resumed run says what it does differently."""

from retinanet_ext import get_cfg
from retinanet_ext.engine.records.config_changes import config_changes


def test_equal_configs_have_no_changes():
    assert config_changes(get_cfg().dump(), get_cfg()) == []


def test_each_change_is_a_line_with_both_values():
    cfg = get_cfg()
    saved = cfg.dump()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS = 0.02, (100, 200)
    cfg.MODEL.RETINANET.CLS_LOSS = "BCE"
    assert sorted(config_changes(saved, cfg)) == [
        "MODEL.RETINANET.CLS_LOSS: FocalLoss -> BCE",
        "SOLVER.BASE_LR: 0.001 -> 0.02",
        "SOLVER.STEPS: [30000] -> [100, 200]",
    ]


def test_where_a_run_lies_is_no_change():
    cfg = get_cfg()
    saved = cfg.dump()
    cfg.OUTPUT_DIR, cfg.DATALOADER.NUM_WORKERS = "elsewhere", 9
    assert config_changes(saved, cfg) == []


def test_keys_that_one_of_them_lacks_are_listed():
    cfg = get_cfg()
    cfg.SOLVER.OLD = 1
    saved = cfg.dump()
    cfg = get_cfg()
    cfg.SOLVER.NEW = "x"
    assert config_changes(saved, cfg) == ["SOLVER.NEW: (none) -> x", "SOLVER.OLD: 1 -> (none)"]
