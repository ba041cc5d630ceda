"""Follow a run on Flower until it is over."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from scaling_fl.flower.control import Control, FlowerRefused, FlowerRun

_LOOK_SECONDS = 30.0
"""How often a run without any output is asked about."""


@dataclass
class Following:
    """A run whose lines are shown as they come, each once.

    The command that follows the output may break off early, so Flower is asked what became of the
    run, and the command is begun again.
    """

    control: Control
    run_id: str
    show: Callable[[str], None]
    is_alive: Callable[[], bool]
    num_shown: int = 0

    def until_over(self, patience_seconds: float = float("inf")) -> FlowerRun:
        """Wait for the end of the run, or for so long, and return what became of it.

        Raises:
            FlowerRefused: the SuperLink has ended.
        """
        deadline = time.monotonic() + patience_seconds
        while True:
            self._show(deadline)
            if not self.is_alive():
                raise FlowerRefused("the SuperLink has ended before the run was over")
            found = self.control.run(self.run_id)
            if found.is_over or time.monotonic() > deadline:
                return found

    def _show(self, deadline: float) -> None:
        number = 0
        look_seconds = max(0.0, min(_LOOK_SECONDS, deadline - time.monotonic()))
        with self.control.output(self.run_id, look_seconds) as lines:
            for line in lines:
                if line is None:
                    if time.monotonic() > deadline or self._is_over():
                        return
                    continue
                number += 1
                if number > self.num_shown:
                    self.show(line)
                    self.num_shown = number

    def _is_over(self) -> bool:
        return not self.is_alive() or self.control.run(self.run_id).is_over
