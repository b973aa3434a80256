"""Programs that measure speed and memory. Run a program with `python -m perf.<name>`.

The programs report ratios to a baseline that they measure in the same run.
"""
