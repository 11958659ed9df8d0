"""The family that ships: models trained under one budget, their curves, their decisions on minimal pairs.

`family/` holds the runs; `wb.load("zoo/tiny-4h")` opens one. `training/zoo` makes it.
"""
