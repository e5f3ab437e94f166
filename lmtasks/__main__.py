"""``python -m lmtasks``."""

import sys

from lmtasks.cli.app import main

sys.exit(main())
