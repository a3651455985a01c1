"""A web page that shows what a model finds in a picture, on the server of the standard library.

``server.py`` listens, ``handler.py`` answers one connection, ``access.py`` says who may ask,
``uploads.py`` turns what was sent into a picture, ``page.html`` is what a person sees.
"""

from __future__ import annotations

from .server import DetectionServer, Limits, listen

__all__ = ["DetectionServer", "Limits", "listen"]
