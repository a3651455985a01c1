"""Losses of the detector, built from the config."""
