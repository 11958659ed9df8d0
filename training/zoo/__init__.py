"""The maker of the family that ships: `python -m training.zoo RUNS`."""
