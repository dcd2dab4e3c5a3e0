"""``python lsfd/test.py -opt options/edsr_x4_lsfd.yml``: scores a run's student on its sets."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # See train.py.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from lsfd.cli import main

    sys.exit(main(["test", *sys.argv[1:]]))
