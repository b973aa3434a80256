"""Build the command of a stage, which checks the parameters, calls the library and reports errors."""
