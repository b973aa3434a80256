"""Programs that measure speed and memory: `python -m perf.<name>`; figures are ratios to something measured in the same run."""
