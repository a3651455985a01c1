"""The detectors that came before RetinaNet, and what compares them."""
