"""Fast paths of the losses; `dispatch.py` alone decides which one runs."""
