"""How long `lsfd` takes to start, beside `import basicsr`.

    python scripts/bench/startup.py

Whole processes, from their start to their end: the help text, and one image of 64 x 64 pixels
through `lsfd upscale`, x4, with nothing chosen. BasicSR 1.4.2 is imported behind the shims of
`lsfd.compat`, without which it does not import beside today's torchvision; what they cost is
measured, too. The bounds are an empty Python, and the packages that cannot be left out: those that
compute, and those that read and write images.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
from common import Row, keep, parser

from lsfd.imaging.files import write_image
from lsfd.metrics.cost import take_turns

PEER = "import basicsr"
NEEDED = "openvino.opset13" if find_spec("openvino") else "torch"
PARTS = {
    "shims": "import lsfd.compat",
    "torch": "import torch",
    "python": "",
    "packages": f"import {NEEDED}, numpy, pyvips, cv2",
}


def command(*arguments: str | Path) -> Callable[[], object]:
    """Return what runs Python with arguments."""
    whole = [sys.executable, *map(str, arguments)]
    return lambda: subprocess.run(whole, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Measure and record."""
    settings = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        image, larger = Path(name) / "small.png", Path(name) / "large.png"
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        write_image(image, noise)
        upscale = ("-m", "lsfd", "upscale", "-i", image, "-o", larger, "-w", "edsr-s-x4")
        seconds = take_turns(
            {
                "basicsr": command("-c", "import lsfd.compat, basicsr"),
                "help": command("-m", "lsfd", "--help"),
                "upscale": command(*upscale, "--device", "cpu"),
                **{part: command("-c", code) for part, code in PARTS.items()},
            },
            settings.rounds,
        )
    peer, parts = seconds["basicsr"], {part: median(seconds[part]) for part in PARTS}
    rows = [
        Row(
            "help text",
            PEER,
            "lsfd --help",
            "process",
            peer,
            seconds["help"],
            10,
            "empty Python",
            parts["python"],
        ),
        Row(
            "one small image",
            PEER,
            "lsfd upscale",
            "process",
            peer,
            seconds["upscale"],
            3,
            PARTS["packages"],
            parts["packages"],
        ),
    ]
    print({f"seconds of '{PARTS[part]}'": round(value, 3) for part, value in parts.items()})
    keep("startup", rows, settings.output, {"seconds": parts})


if __name__ == "__main__":
    main()
