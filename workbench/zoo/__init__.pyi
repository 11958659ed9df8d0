from .table import zoo_table as zoo_table
