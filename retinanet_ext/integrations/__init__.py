"""Bridges to other packages; each module imports its package, which nothing else here needs."""
