"""Run the command line program with `python -m simgap.cli`."""

from simgap.cli.main import main

main()
