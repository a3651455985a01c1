"""Charts as inline SVG, in the colours of the page's style sheet."""
