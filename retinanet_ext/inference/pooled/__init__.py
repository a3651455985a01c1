"""One picture seen several times, as tiles or as views, and what is found put together."""
