"""What probes found, for readers: tables in the terminal, curves, confusions, a page."""
