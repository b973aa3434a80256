"""Define the command of each stage in a module of its own.

DVC runs `python -m stages.NAME --option value` in the root of the workspace.
"""

import gc
import sys
from pathlib import Path

# Garbage collection is off during the imports. Importing torch and open_clip creates so many objects that garbage collection
# would take a third of the time of a short stage. `simgap.stage.command` turns garbage collection on again after the imports,
# and excludes these objects.
gc.disable()

# An experiment runs in a copy of the repository. Each stage must import the source of this copy, not an installed simgap.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
