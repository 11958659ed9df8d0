"""Single neurons: what activates them, what they write, and their effects."""
