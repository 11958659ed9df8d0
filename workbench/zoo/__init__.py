"""The family that ships: models trained under one budget, with their curves and their decisions on minimal pairs.

`family/` holds the runs; `wb.load("zoo/tiny-4h")` opens one. `training/zoo` makes it.
"""
