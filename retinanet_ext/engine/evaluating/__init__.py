"""Evaluation in training, and the best checkpoint."""
