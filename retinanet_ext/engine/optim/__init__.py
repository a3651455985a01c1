"""Optimizer, schedule, and what changes the weights."""
