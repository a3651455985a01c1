"""From the content of a report to one html file."""
