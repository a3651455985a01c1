"""What the benchmark measures, one file per task."""
