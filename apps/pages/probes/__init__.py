"""What each layer knows: kept results of `workbench probe`."""
