"""Small datasets of the four formats, varied at random, and what is right of each variation."""
