"""Reading dense features from a tower, combining windows, and acting on scores."""
