"""Where the members of a sweep run: here, or on a cluster."""
