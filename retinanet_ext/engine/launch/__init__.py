"""Processes of a job: launching, clusters, restarts, signals."""
