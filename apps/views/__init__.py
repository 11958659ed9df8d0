"""The parts of the page; each has one `show`."""
