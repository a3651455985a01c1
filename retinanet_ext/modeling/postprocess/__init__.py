"""From the head's outputs to detections."""
