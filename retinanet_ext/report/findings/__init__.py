"""What stands out in an evaluation: why objects are missed, the worst pictures, what to try."""

from .advice import Advice, model_settings, what_to_try
from .content import findings_content
from .large import count_large_boxes
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
    "Advice",
    "Look",
    "MissedObject",
    "Misses",
    "PictureBox",
    "PossibleLabel",
    "WorstPicture",
    "count_large_boxes",
    "explain_misses",
    "findings_content",
    "model_settings",
    "possible_missing_labels",
    "what_to_try",
    "worst_pictures",
]
