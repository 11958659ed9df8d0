"""The study of a run as one HTML page."""
