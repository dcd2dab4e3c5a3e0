"""The folder of one run: what lies where, as BasicSR's users expect it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from lsfd.atomic import TEMPORARY
from lsfd.config.load import LoadedOptions
from lsfd.disk import DiskError
from lsfd.errors import LsfdError


@dataclass(frozen=True)
class RunFolder:
    """``<experiments_root>/<name>`` and the places in it."""

    root: Path

    @classmethod
    def of(cls, loaded: LoadedOptions) -> RunFolder:
        """Return the folder of the run of an option file."""
        return cls(Path(loaded.options.path.experiments_root) / loaded.options.name)

    @property
    def models(self) -> Path:
        """Students saved during training."""
        return self.root / "models"

    @property
    def states(self) -> Path:
        """Checkpoints."""
        return self.root / "training_states"

    @property
    def visualization(self) -> Path:
        """Validation images."""
        return self.root / "visualization"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's events."""
        return self.root / "tb_logger"

    @property
    def records(self) -> Path:
        """Losses and scores, one JSON object a line."""
        return self.root / "metrics.jsonl"

    @property
    def curves(self) -> Path:
        """Picture of the records."""
        return self.root / "curves.png"

    @property
    def options(self) -> Path:
        """The option file that the run was started with, overrides applied."""
        return self.root / "options.yml"

    @property
    def lock(self) -> Path:
        """The file that the process which trains here holds locked; beside the folder."""
        return self.root.with_name(f".{self.root.name}.in_use")

    @property
    def student(self) -> Path:
        """The finished student, named after the run so that it can be passed on as it is."""
        return self.root / f"{self.root.name}.safetensors"

    def peer(self, number: int) -> Path:
        """The finished peer of this number, counted from 1."""
        return self.root / f"{self.root.name}_peer{number}.safetensors"

    def generation(self, number: int) -> RunFolder:
        """The folder of an earlier one of ``train.generations``, counted from 1."""
        return RunFolder(self.root.with_name(f"{self.root.name}_generation{number}"))

    def create(self, *, resuming: bool) -> Path | None:
        """Make the folders; a folder of an earlier run is renamed first unless it is resumed.

        Returns:
            Where the earlier run was moved to, if it was.

        Raises:
            LsfdError: the folders cannot be made.
        """
        moved = None
        try:
            for leftover in self.root.rglob(f".*{TEMPORARY}"):  # of a killed process
                leftover.unlink(missing_ok=True)
            if self.root.exists() and not resuming:
                moved = self._archive_name()
                self.root.rename(moved)
            for folder in (self.models, self.states):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LsfdError(
                f"the run's folder {self.root} cannot be made ({error.strerror}); change "
                "path.experiments_root"
            ) from error
        return moved

    def check(self) -> None:
        """Raise an error if the folder has gone: nothing may be made in its place.

        Raises:
            LsfdError: its disk or network share is not there any more.
        """
        if not self.states.is_dir():
            raise DiskError(
                f"the run's folder {self.root} is not there any more; see to it that its disk or "
                "network share is there, then go on with --auto_resume"
            )

    def _archive_name(self) -> Path:
        """Return a name that is free: two runs may be archived in one second."""
        name = f"{self.root.name}_archived_{time.strftime('%Y%m%d_%H%M%S')}"
        archived, number = self.root.with_name(name), 1
        while archived.exists():
            number += 1
            archived = self.root.with_name(f"{name}_{number}")
        return archived
