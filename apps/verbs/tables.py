"""Tables, numbers and curves as text, which live in `workbench.tables`. Not a verb."""

from workbench.tables import clean, number, print_table, sparkline

__all__ = ["clean", "number", "print_table", "sparkline"]
