"""A model that its settings rule out is named by them; a bug keeps its traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.modeling import BACKBONE_REGISTRY, build_model

from retinanet_ext import RetinaNetTrainer, evaluate, get_cfg, load_config_file, validate_cfg
from retinanet_ext.engine.impossible_model import impossible_model_explained
from retinanet_ext.errors import ConfigError, InputError
from retinanet_ext.modeling.heads.build import RetinaNetHead
from retinanet_ext.registry import DENSE_HEAD_REGISTRY


def cfg_with(**values: Any):
    cfg = get_cfg()
    load_config_file(cfg, "Base-R_18_FPN-scratch.yaml")
    cfg.MODEL.DEVICE = "cpu"
    for name, value in values.items():
        *sections, last = name.split(".")
        node = cfg
        for section in sections:
            node = node[section]
        node[last] = value
    return cfg


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"MODEL.FPN.IN_FEATURES": ["res9"]}, r"FPN\.IN_FEATURES is \['res9'\].*'res5'\] would"),
        ({"MODEL.FPN.IN_FEATURES": ["res3", "res5"]}, r"FPN\.IN_FEATURES.*not log2 contiguous"),
        (
            {"MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator"}
            | {"MODEL.ANCHOR_GENERATOR.SIZES": [[float(size)] for size in range(1, 20)]},
            r"ANCHOR_GENERATOR\.SIZES is .*sizes of length 19 .*number of input features is 5",
        ),
        ({"MODEL.RESNETS.OUT_FEATURES": []}, r"RESNETS\.OUT_FEATURES is \[\]"),
        ({"MODEL.RESNETS.RES2_OUT_CHANNELS": 256}, r"DEPTH is 18.*RES2_OUT_CHANNELS = 64 for R18"),
        ({"MODEL.RESNETS.NUM_GROUPS": 3}, r"NUM_GROUPS is 3.*change one of them"),
        ({"MODEL.RESNETS.RES5_DILATION": 3}, r"RES5_DILATION is 3.*1 would work"),
        ({"MODEL.RESNETS.DEPTH": 19}, r"DEPTH is 19.*KeyError: 19.*50 would work"),
        (
            {"MODEL.RETINANET.NORM": "GN", "MODEL.RETINANET.HEAD_WIDTH": 50},
            r"NORM is 'GN', MODEL\.RETINANET\.HEAD_WIDTH is 50.*divisible.*change one of them",
        ),
        ({"MODEL.META_ARCHITECTURE": "GeneralizedRCNN"}, "META_ARCHITECTURE is 'GeneralizedRCNN'"),
    ],
)
def test_the_settings_that_rule_a_model_out_are_named(
    values: dict[str, Any], words: str, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("Base-RetinaNet.yaml").write_text("SEED: [not the shipped one")
    with pytest.raises(InputError, match=words):
        RetinaNetTrainer.build_model(cfg_with(**values))


def test_missing_compiled_operations_are_a_matter_of_the_key_that_asks_for_them(monkeypatch):
    module = "detectron2.modeling.backbone.resnet.DeformConv"
    # As a function of Detectron2's own module.
    source = "def missing(*args, **kwargs):\n    raise ImportError('no detectron2._C')\n"
    namespace: dict[str, Any] = {"__name__": "detectron2.layers.deform_conv"}
    exec(source, namespace)
    monkeypatch.setattr(module, namespace["missing"])
    values = {"MODEL.RESNETS.DEPTH": 50, "MODEL.RESNETS.RES2_OUT_CHANNELS": 256}
    stages = {"MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, False, True]}
    with pytest.raises(InputError, match=r"DEFORM_ON_PER_STAGE is .*no detectron2\._C"):
        RetinaNetTrainer.build_model(cfg_with(**values, **stages))


@pytest.mark.parametrize("use", [build_model, RetinaNetTrainer, evaluate, validate_cfg])
@pytest.mark.parametrize("anchors", ["DefaultAnchorGenerator", "RetinaNetAnchorGenerator"])
def test_a_config_without_the_packages_keys_says_how_they_are_added(use, anchors):
    cfg = get_detectron2_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.META_ARCHITECTURE = "cpu", "RetinaNetExt"
    cfg.MODEL.ANCHOR_GENERATOR.NAME = anchors
    with pytest.raises(ConfigError, match=r"no key MODEL.*call retinanet_ext\.add_retinanet_ext_c"):
        use(cfg)


def test_so_does_our_anchor_generator_in_detectron2s_model():
    cfg = cfg_with(**{"MODEL.META_ARCHITECTURE": "RetinaNet"})
    del cfg.MODEL.ANCHOR_GENERATOR["OCTAVE_BASE_SIZES"]
    with pytest.raises(ConfigError, match=r"no key MODEL\.ANCHOR_GENERATOR\.OCTAVE_BASE_SIZES"):
        build_model(cfg)


def test_an_error_that_no_setting_mends_keeps_its_type(monkeypatch):
    def broken(cfg, input_shape):
        raise KeyError("a bug")

    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "broken", broken)
    with pytest.raises(KeyError, match="a bug"):
        RetinaNetTrainer.build_model(cfg_with(**{"MODEL.BACKBONE.NAME": "broken"}))


def test_an_error_in_a_users_own_code_keeps_its_type_even_where_a_setting_would_mend_it(
    monkeypatch,
):
    class FewConvsHead(RetinaNetHead):
        def build_towers(self, make_tower):
            if len(make_tower()) > 3:
                raise RuntimeError("too many")
            super().build_towers(make_tower)

    monkeypatch.setitem(DENSE_HEAD_REGISTRY._obj_map, "FewConvsHead", FewConvsHead)
    values = {"MODEL.RETINANET.HEAD": "FewConvsHead", "MODEL.RETINANET.NUM_CONVS": 6}
    with pytest.raises(RuntimeError, match="too many"):
        RetinaNetTrainer.build_model(cfg_with(**values))


def test_an_error_that_does_not_come_again_is_no_matter_of_settings():
    with pytest.raises(RuntimeError, match="once"), impossible_model_explained(cfg_with()):
        raise RuntimeError("once")
