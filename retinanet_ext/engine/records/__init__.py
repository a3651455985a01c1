"""What a run writes: curves, summaries, provenance."""
