"""A trained RetinaNet of another toolkit as one of this package, and back, with equal numbers."""
