"""Fatal errors of a training: reports and snapshots."""
