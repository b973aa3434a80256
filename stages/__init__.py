"""One module for each stage: `python -m stages.<name> --option value`, run by DVC in the root of the workspace."""

import gc
import sys
from pathlib import Path

# Importing torch and open_clip creates so many objects that garbage collection takes a third of the time of a short stage.
# `simgap.stage.command` turns it on again, without these objects.
gc.disable()

# An experiment runs in a copy of the repository, and must import the source of that copy, not an installed simgap.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
