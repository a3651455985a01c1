"""Configs of this package in Detectron2's LazyConfig form, made from their yaml files."""

from .config import lazy_config

__all__ = ["lazy_config"]
