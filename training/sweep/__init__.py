"""Families of runs: a sweep file becomes a plan, a plan a folder of runs that survives what happens to it."""
