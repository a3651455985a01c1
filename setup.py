"""For tools that look for a ``setup.py``; what it would say is in ``pyproject.toml``."""

from setuptools import setup

setup()
