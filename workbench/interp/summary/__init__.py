"""What a first look at a run shows, worked out once and kept beside it."""
