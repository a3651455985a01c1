"""Drawing boxes, samples and contact sheets."""
