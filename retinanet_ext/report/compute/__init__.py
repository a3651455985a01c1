"""The content of a report: everything that is computed before the page is written."""
