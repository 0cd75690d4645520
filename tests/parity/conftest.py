"""The helpers beside the tests are plain modules, because the script that makes the golden files uses them too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
