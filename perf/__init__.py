"""Programs that measure speed and memory: `python -m perf.<name>`.

Results are reported as ratios to a baseline that is measured in the same run.
"""
