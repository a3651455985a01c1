"""Assigners: which anchor has to predict which object."""
