"""Finders of a learning rate and a batch size, before a run: `workbench tune`."""
