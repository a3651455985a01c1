"""One training step: micro-batches, precision, seeds, determinism."""
