"""Dense heads over a feature pyramid."""
