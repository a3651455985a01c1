"""Saving, loading and fine-tuning from checkpoints."""
