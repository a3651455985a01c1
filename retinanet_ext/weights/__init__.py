"""Weights: what can be loaded and from where, safely."""
