"""Which share of the loss, or of the windows, easy background has: before and after the cure.

A trained system looks at validation pictures, and each of its anchors, cells, proposals or windows
is labelled as in training. Before the cure all of them count, by cross entropy; after it as in the
system's training: sampled, mined, or by its own loss. Easy is background of which the model says
by at least :data:`.counted.EASY` that it is background. The cascade has no such loss: its share is
that of background among all windows, and among those that pass all stages.
"""

from __future__ import annotations

from .counted import Counted
from .shares import shares_of

__all__ = ["Counted", "shares_of"]
