"""Many pictures in a row: read ahead, put in batches, computed side by side, and kept in order."""
