"""``python lsfd/train.py -opt options/edsr_x4_lsfd.yml``: the same as ``lsfd train``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run as a script, Python puts this folder first on the path, where our "data" or "test" would
    # shadow other people's modules; the folder above it is the one to import from.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from lsfd.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
