"""From dataset dicts to batches: the training stream, workers, mappers."""
