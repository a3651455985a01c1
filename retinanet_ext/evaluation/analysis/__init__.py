"""What a detector does wrong, from its detections and the ground truth; no model is needed.

All of it rests on one assignment of detections to objects, which is COCO's.
"""

from .assignment import Assignment, assign
from .tables import Tables, make_tables

__all__ = ["Assignment", "Tables", "assign", "make_tables"]
