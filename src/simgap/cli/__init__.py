"""Define the command line program `simgap`."""
