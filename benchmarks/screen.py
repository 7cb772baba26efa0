"""Progress of a run on the terminal: one bar for all, one for the present run."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Screen:
    """Two progress bars; without a terminal, a line per run."""

    def __init__(self, console: Console, questions: int) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task("all", total=questions)
        self._one = self._bars.add_task("", total=1.0)
        self._asked = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def question(self, name: str) -> None:
        """The next benchmark begins."""
        self._bars.update(self._all, description=f"[bold]{name}", completed=self._asked)
        self._asked += 1

    def begin(self, what: str) -> None:
        """The next run begins."""
        self._bars.reset(self._one, description=what, total=1.0)
        if not self._console.is_terminal:
            self._console.print(what, highlight=False)

    def share(self, done: float) -> None:
        """Progress of the present run, 0 to 1."""
        self._bars.update(self._one, completed=done)

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._console.print(text, highlight=False)
