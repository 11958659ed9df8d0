"""What attention heads look at and do."""
