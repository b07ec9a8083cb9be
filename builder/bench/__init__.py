"""pyperformance in images, in turns."""
