"""Commands that look at data and detections, and what they draw with."""
