"""``python -m lmtasks``."""

import sys

from lmtasks.cli import main

sys.exit(main())
