"""One module a stage: `python -m stages.<name> --option value`, run by DVC from the workspace's root."""

import gc
import sys
from pathlib import Path

# Importing torch and open_clip makes so many objects that collecting among them, now and at the end, costs a third of a
# short stage; `simgap.stage.command` turns collection on again and leaves them out of it.
gc.disable()

# An experiment runs in a copy of the repository: its own source comes before any installed simgap.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
