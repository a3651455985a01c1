"""The yaml file of this name, for Detectron2's tools/lazyconfig_train_net.py."""

from retinanet_ext.engine.lazy import lazy_config

_config = lazy_config("retinanet_R_50_FPN_1x.yaml")
model, dataloader, optimizer, lr_multiplier, train = _config.values()
