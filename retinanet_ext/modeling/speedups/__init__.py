"""Exact speedups of the network."""
