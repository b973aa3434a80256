"""One module a stage: `python -m stages.<name> --option value`, run by DVC from the workspace's root."""

import sys
from pathlib import Path

# An experiment runs in a copy of the repository: its own source comes before any installed simgap.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
