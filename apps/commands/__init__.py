"""The commands of `workbench`: typed functions that call the library and pass its result to `emit`."""
