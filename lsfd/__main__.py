"""``python -m lsfd``: the same as the command ``lsfd``."""

import sys

from lsfd.cli import main

sys.exit(main())
