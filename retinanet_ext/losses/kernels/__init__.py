"""Fast paths of the losses; only `dispatch.py` decides which one runs."""
