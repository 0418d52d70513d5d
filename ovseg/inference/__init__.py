"""From an image to its result: reading, predicting, deciding, drawing and writing."""
