"""The yaml file of this name, for Detectron2's tools/lazyconfig_train_net.py."""

from retinanet_ext.engine.lazy import lazy_config

_config = lazy_config("retinanet_R_101_FPN_3x.yaml")
model, dataloader, optimizer, lr_multiplier, train = _config.values()
