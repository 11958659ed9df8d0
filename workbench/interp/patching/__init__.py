"""Activation patching: sweeps, their estimates, direct paths and edges."""
