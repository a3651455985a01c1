"""What goes with an exported file to where it is run: NumPy and Pillow, nothing of this package."""
