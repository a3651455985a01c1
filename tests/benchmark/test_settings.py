"""Settings reach another process unchanged and can be varied."""

from __future__ import annotations

from retinanet_ext.benchmark import Settings


def test_json_gives_the_same_settings_back(settings):
    again = Settings.from_json(settings.to_json())
    assert again == settings
    assert again.cfg == settings.cfg and again.size == (64, 96)


def test_config_keys_can_be_changed_without_touching_the_original(settings):
    other = settings.with_classes(11).with_keys({"MODEL.RETINANET.LOSS_KERNEL": "reference"})
    assert (other.num_classes, settings.num_classes) == (11, 3)
    assert other.cfg.MODEL.RETINANET.LOSS_KERNEL == "reference"
    assert settings.cfg.MODEL.RETINANET.LOSS_KERNEL == "auto"


def test_tiny_settings_are_small_and_keep_the_model(settings):
    tiny = settings.with_gt(1000).tiny()
    assert tiny.batch == 1 and tiny.num_gt < 10 and tiny.cfg == settings.cfg
