"""--tile, --tta and what goes with them set the keys of the config that they mean."""

from __future__ import annotations

import argparse

import pytest

from retinanet_ext import get_cfg
from retinanet_ext.cli.options.tiles import add_tile_options, apply_tile_options
from retinanet_ext.config import flatten, validate_cfg
from retinanet_ext.errors import InputError


def applied(*words: str):
    parser = argparse.ArgumentParser()
    add_tile_options(parser)
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 600, 1000
    before = dict(flatten(cfg))
    apply_tile_options(cfg, parser.parse_args(words))
    assert validate_cfg(cfg) == []
    return {key: value for key, value in flatten(cfg) if before[key] != value}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {}),
        ("--tile 800", {"TEST.TILES.SIZE": (800, 800)}),
        (
            "--tile 600x800 --tile-overlap 0.25 --tile-full-image no --tile-batch 8",
            {
                "TEST.TILES.SIZE": (600, 800),
                "TEST.TILES.OVERLAP": 0.25,
                "TEST.TILES.FULL_IMAGE": False,
                "TEST.TILES.BATCH": 8,
            },
        ),
        (
            "--tile 800 --tile-overlap 120px --tile-merge wbf --merge-thresh 0.55",
            {
                "TEST.TILES.SIZE": (800, 800),
                "TEST.TILES.OVERLAP_PIXELS": 120,
                "TEST.MERGE.KIND": "wbf",
                "TEST.MERGE.THRESH": 0.55,
            },
        ),
        (
            "--tta flip",
            {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (600,), "TEST.AUG.MAX_SIZE": 1000},
        ),
        (
            "--tta 0.8,1.25 --tile-merge soft",
            {
                "TEST.AUG.ENABLED": True,
                "TEST.AUG.FLIP": False,
                "TEST.AUG.MIN_SIZES": (600, 480, 750),
                "TEST.AUG.MAX_SIZE": 1250,
                "TEST.MERGE.KIND": "soft",
            },
        ),
    ],
)
def test_options_set_keys(words, expected):
    assert applied(*words.split()) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--tile-overlap 0.3", "--tile-overlap is about tiles; pass --tile"),
        ("--tile-full-image no --tta flip", "--tile-full-image is about tiles; pass --tile"),
        ("--tile-merge wbf", "--tile-merge is about tiles and views; pass --tile or --tta"),
        ("--merge-thresh 0.4", "--merge-thresh is about tiles and views"),
        ("--tile-batch 2", "--tile-batch is about tiles and views"),
        ("--tile 256 --tile-overlap 256px", "OVERLAP_PIXELS is 256"),
        ("--tile 100", "too small"),
    ],
)
def test_options_that_nothing_reads_or_that_cannot_work_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        applied(*words.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--tile big", "'big' is no size"),
        ("--tile 800x", "'800x' is no size"),
        ("--tile-overlap 1", "'1' is no overlap"),
        ("--tile-overlap 0px", "'0px' is no overlap"),
        ("--merge-thresh 2", "'2' is no IoU"),
        ("--tile-batch 0", "'0' is not a whole number from 1"),
        ("--tta mirror", "'mirror' names no views"),
        ("--tta flip,0", "'flip,0' names no views"),
    ],
)
def test_words_that_are_no_values_are_named(words, message, capsys):
    with pytest.raises(SystemExit):
        applied(*words.split())
    assert message in capsys.readouterr().err


def test_scales_need_a_size_to_scale():
    parser = argparse.ArgumentParser()
    add_tile_options(parser)
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST = 0
    with pytest.raises(InputError, match=r"INPUT\.MIN_SIZE_TEST"):
        apply_tile_options(cfg, parser.parse_args(["--tta", "flip"]))
