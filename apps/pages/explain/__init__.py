"""Explain a pair or a text: the first page."""
