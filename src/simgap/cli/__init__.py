"""The command line program `simgap`."""
