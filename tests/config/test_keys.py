"""The rules that stand at the definition of a key are the rules that hold."""

from __future__ import annotations

from typing import Any

import pytest
from detectron2.config import get_cfg as get_detectron2_cfg

import retinanet_ext
from retinanet_ext import get_cfg, register_config_key, validate_cfg
from retinanet_ext.config import flatten
from retinanet_ext.config.keys import KEYS, NOT_ADDED, Key, Section, check_keys
from retinanet_ext.errors import ConfigError, InputError
from retinanet_ext.losses.cross_entropy import CLASS_BALANCES
from retinanet_ext.losses.kernels.dispatch import KERNELS
from retinanet_ext.modeling import OHEM
from retinanet_ext.modeling.backbones.build import TOP_BLOCK_INPUTS
from retinanet_ext.modeling.criteria.normalizer import NORMALIZERS
from retinanet_ext.modeling.criteria.quality_branch import QUALITY_BRANCHES
from retinanet_ext.modeling.heads.towers import NORM_PER_LEVEL
from retinanet_ext.modeling.postprocess.soft_nms import SOFT_NMS_METHODS
from retinanet_ext.modeling.postprocess.suppress import NMS_KINDS

NODE = "MODEL.RETINANET."
# What the parts themselves know, beside what their key takes.
IMPLEMENTED: dict[str, tuple[str, ...]] = {
    NODE + "NORM_PER_LEVEL": NORM_PER_LEVEL,
    NODE + "QUALITY_BRANCH": QUALITY_BRANCHES,
    NODE + "LOSS_KERNEL": KERNELS,
    NODE + "OHEM_MODE": OHEM.MODES,
    NODE + "CLASS_BALANCE": ("given", *CLASS_BALANCES),
    NODE + "LOSS_NORMALIZER": NORMALIZERS,
    NODE + "NMS_KIND": NMS_KINDS,
    NODE + "SOFT_NMS_METHOD": SOFT_NMS_METHODS,
    "MODEL.FPN.TOP_BLOCK_IN": TOP_BLOCK_INPUTS,
}


def cfg_with(**keys: Any):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    for name, value in keys.items():
        *sections, last = name.split(".")
        node = cfg
        for section in sections:
            node = node[section]
        node[last] = value
    return cfg


@pytest.fixture
def own_keys():
    """What a test registers is gone after it."""
    before = dict(KEYS)
    yield
    KEYS.clear()
    KEYS.update(before)


def names_with(attribute: str) -> list[str]:
    return [name for name, key in KEYS.items() if getattr(key, attribute) not in (None, ())]


def test_every_added_key_is_defined_once_and_has_a_default_that_it_may_have():
    defaults, detectron2s = dict(flatten(get_cfg())), dict(flatten(get_detectron2_cfg()))
    assert {name for name, key in KEYS.items() if key.default is not NOT_ADDED} == (
        defaults.keys() - detectron2s.keys()
    )
    for name, key in KEYS.items():
        key.check(defaults[name])


@pytest.mark.parametrize("name", names_with("choices"))
def test_a_value_that_is_no_choice_is_refused_with_the_choices(name: str):
    key = KEYS[name]
    wrong = f"{next(x for x in key.choices if x)}x"
    value = [wrong] if isinstance(key.default, list) else wrong
    with pytest.raises(InputError) as caught:
        validate_cfg(cfg_with(**{name: value}))
    message = str(caught.value)
    assert name in message and repr(wrong) in message and "Did you mean" in message
    assert all(str(choice) in message for choice in key.choices)


@pytest.mark.parametrize("name", sorted(IMPLEMENTED))
def test_a_key_takes_what_its_part_can_do(name: str):
    assert KEYS[name].choices == IMPLEMENTED[name]


@pytest.mark.parametrize("name", names_with("at_least") + names_with("above"))
def test_a_number_below_its_bound_is_refused(name: str):
    key = KEYS[name]
    low = key.at_least if key.above is None else key.above
    default = dict(flatten(get_cfg()))[name]
    wrong = type(default)(low - 1 if key.above is None else low)
    with pytest.raises(InputError, match=rf"{name} must be .*, got {wrong}"):
        validate_cfg(cfg_with(**{name: wrong}))


@pytest.mark.parametrize("name", names_with("at_most") + names_with("below"))
def test_a_number_above_its_bound_is_refused(name: str):
    key = KEYS[name]
    wrong = key.at_most + 1 if key.below is None else float(key.below)
    with pytest.raises(InputError, match=rf"{name} must be in .*, got {wrong}"):
        validate_cfg(cfg_with(**{name: wrong}))


@pytest.mark.parametrize("name", names_with("only_with"))
def test_a_key_that_only_another_choice_reads_is_refused_until_that_is_chosen(name: str):
    key, default = KEYS[name], dict(flatten(get_cfg()))[name]
    chooser, choice = key.only_with
    choices = choice if isinstance(choice, tuple) else (choice,)
    unread = {chooser: another_choice(chooser, choices)}
    others = [x for x in key.choices if x != default]
    if others:
        changed = others[0]
    elif isinstance(default, bool):
        changed = not default
    elif isinstance(default, tuple):
        changed = (*default[:1], *default)
    else:
        changed = type(default)(0.5 * default) or 0.0001
    words = " or ".join(map(str, choices))
    cfg = cfg_with(**needs_of(chooser), **unread, **{name: changed})
    if key.default is NOT_ADDED and choice is True:  # a switch of Detectron2's
        (warning,) = validate_cfg(cfg)
        assert warning.startswith(f"{name} is {changed!r}, but without {chooser} nothing reads it")
    else:
        with pytest.raises(InputError, match=rf"{name} is .*set {chooser} (to )?{words}"):
            validate_cfg(cfg)
    for one in choices:
        if one not in NEEDS_MORE:
            assert (
                validate_cfg(cfg_with(**needs_of(chooser), **{name: changed, chooser: one})) == []
            )


# Choices that need a key which Detectron2's defaults do not have.
NEEDS_MORE = {"WeightedCategoryTrainingSampler"}


def another_choice(chooser: str, choices: tuple[Any, ...]) -> Any:
    """What ``chooser`` is where none of ``choices`` is chosen: its default, if that will do."""
    default = dict(flatten(get_cfg()))[chooser]
    known = KEYS[chooser].choices if chooser in KEYS else ()
    found = [x for x in (default, *known) if x not in choices]
    return "OneCycleLR" if "OneCycleLR" in found else found[0]


def needs_of(chooser: str) -> dict[str, Any]:
    """What another choice than the default of ``chooser`` needs itself."""
    of_chooser = KEYS[chooser].only_with if chooser in KEYS else None
    return dict([of_chooser]) if of_chooser else {}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (NODE + "HEAD_WIDTH", "wide", "a whole number"),
        (NODE + "HEAD_WIDTH", True, "a whole number"),
        (NODE + "BOX_LOSS_WEIGHT", "1", "a number"),
        ("TEST.VAL_LOSS", 1, "True or False"),
        ("INPUT.AUG", "Default", "a list"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: Any, words: str):
    with pytest.raises(InputError, match=rf"{name} is {value!r}; set it to {words}"):
        validate_cfg(cfg_with(**{name: value}))


def test_whole_numbers_are_numbers_and_tuples_are_lists():
    assert validate_cfg(cfg_with(**{NODE + "BOX_LOSS_WEIGHT": 2, "WRITERS": ("wandb",)})) == []


def test_not_a_number_is_out_of_any_bound():
    with pytest.raises(InputError, match="LAYER_LR_DECAY must be"):
        validate_cfg(cfg_with(**{"SOLVER.LAYER_LR_DECAY": float("nan")}))


def test_a_builder_asks_the_same_rule_as_validation():
    cfg = cfg_with(**{"SOLVER.OPTIMIZER": "Adamw"})
    with pytest.raises(InputError) as first:
        check_keys(cfg, "SOLVER.OPTIMIZER")
    with pytest.raises(InputError) as second:
        validate_cfg(cfg)
    assert str(first.value) == str(second.value)


def test_a_key_of_ones_own_is_in_every_config_from_then_on(own_keys: None):
    register_config_key("MODEL.RETINANET.POLY_EPSILON", 1.0, choices=None, above=-2)
    register_config_key("MINE.DEEPER.SWITCH", False)
    cfg = get_cfg()
    assert cfg.MODEL.RETINANET.POLY_EPSILON == 1.0 and cfg.MINE.DEEPER.SWITCH is False
    projects = get_detectron2_cfg()
    retinanet_ext.add_retinanet_ext_config(projects)
    assert projects.MODEL.RETINANET.POLY_EPSILON == 1.0
    assert validate_cfg(cfg_with(**{NODE + "POLY_EPSILON": -1.0})) == []
    with pytest.raises(InputError, match=r"POLY_EPSILON must be above -2, got -3\.0"):
        validate_cfg(cfg_with(**{NODE + "POLY_EPSILON": -3.0}))
    cfg.MODEL.RETINANET.POLY_EPSILN = 1.0
    with pytest.raises(ConfigError, match=r"Did you mean 'MODEL\.RETINANET\.POLY_EPSILON'"):
        validate_cfg(cfg)


def test_a_list_is_not_shared_between_configs(own_keys: None):
    register_config_key("MINE.NAMES", [])
    get_cfg().MINE.NAMES.append("a")
    assert get_cfg().MINE.NAMES == []


def test_registering_again_is_fine_only_with_the_same_default(own_keys: None):
    register_config_key("MODEL.RETINANET.POLY_EPSILON", 1.0)
    register_config_key("MODEL.RETINANET.POLY_EPSILON", 1.0)
    with pytest.raises(InputError, match=r"POLY_EPSILON' is registered already.*1\.0.*2\.0"):
        register_config_key("MODEL.RETINANET.POLY_EPSILON", 2.0)
    assert get_cfg().MODEL.RETINANET.POLY_EPSILON == 1.0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MODEL.RETINANET", "is a section"),
        ("SOLVER.BASE_LR", "a key of Detectron2"),
        ("SOLVER.GAMMA", "a key of Detectron2"),
        ("SOLVER.GAMMA.MINE", "below a key"),
        (NODE + "NMS_KIND", "registered already"),
    ],
)
def test_a_name_that_is_taken_is_refused(own_keys: None, name: str, words: str):
    with pytest.raises(InputError, match=words):
        register_config_key(name, 3)
    assert validate_cfg(cfg_with()) == []


def test_a_default_that_breaks_its_own_rule_is_refused(own_keys: None):
    with pytest.raises(InputError, match=r"MINE\.SIZE must be positive, got 0"):
        register_config_key("MINE.SIZE", 0, above=0)
    assert "MINE" not in get_cfg()


def test_the_other_key_of_only_with_may_be_named_by_its_last_part():
    assert Key("A.B.C", 1, only_with=("D", "x")).only_with == ("A.B.D", "x")
    with pytest.raises(InputError, match="defined twice"):
        Section("MODEL.RETINANET").add("HEAD", "RetinaNetHead")
