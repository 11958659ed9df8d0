"""The comparison of a folder of runs as one page."""
