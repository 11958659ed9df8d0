"""What stands around every page: the menu, the sidebar, the address, and how mistakes are told."""
