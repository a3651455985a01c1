"""Proposal generators for two-stage detectors."""
