"""What a model does wrong, and what may help: the report on an evaluation."""
