"""Makes `cloud_rig` importable for the tests of this folder, whichever way pytest is started."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
