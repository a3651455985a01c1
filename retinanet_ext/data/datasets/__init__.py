"""Registered datasets: by name, by path, by class, and their checks."""
