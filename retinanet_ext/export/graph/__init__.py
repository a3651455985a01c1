"""What is put into a file: a detector of plain layers, whose shapes follow from its input."""
