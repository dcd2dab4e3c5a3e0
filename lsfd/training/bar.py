"""A progress bar for work that takes days, in which a host's clock may be set."""

from __future__ import annotations

import math
import time
from typing import Any

from tqdm import tqdm


class Bar(tqdm):  # type: ignore[type-arg]
    """tqdm's, by a clock that only goes forward.

    By the host's own clock a bar stands still once that is set back, until it has caught up, and
    the time left comes to years once it is set forward.
    """

    def __init__(self, **how: Any) -> None:
        """Show a bar.

        Args:
            how: tqdm's arguments.
        """
        # tqdm's thread that looks after bars compares with the host's clock: it is to leave this
        # one alone.
        super().__init__(**{"maxinterval": math.inf, **how})
        if not self.disable:
            self._time = time.monotonic
            self.start_t = self.last_print_t = self._time()
