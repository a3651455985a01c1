"""What stands out in an evaluation: why objects are missed, the worst pictures, what to try."""

from .missed import Look, explain_misses
from .reasons import REASONS, TITLES, MissedObject, Misses
from .worst import (
    PictureBox,
    PossibleLabel,
    WorstPicture,
    possible_missing_labels,
    worst_pictures,
)

__all__ = [
    "REASONS",
    "TITLES",
    "Look",
    "MissedObject",
    "Misses",
    "PictureBox",
    "PossibleLabel",
    "WorstPicture",
    "explain_misses",
    "possible_missing_labels",
    "worst_pictures",
]
