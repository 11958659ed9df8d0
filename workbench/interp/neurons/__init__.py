"""What single neurons fire on, write and do."""
