"""Tables and pictures that verbs write with --out, which live in `workbench.outputs`. Not a verb."""

from workbench.outputs import out_folder, records, save_picture, save_table

__all__ = ["out_folder", "records", "save_picture", "save_table"]
