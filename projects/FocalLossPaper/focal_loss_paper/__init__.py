"""Trains the rows of the focal loss paper's tables and lays the results beside the published."""
