"""Models without some of their parts."""
