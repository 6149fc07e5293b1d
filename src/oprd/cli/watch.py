"""`oprd watch`: a run in the terminal while it trains."""

import time
from pathlib import Path
from typing import Annotated

import typer

from oprd.cli.errors import setting_up

RunFolderPath = Annotated[Path, typer.Argument(help="The run folder, its output_dir.")]
Every = Annotated[float, typer.Option("--every", help="Seconds between looks at it.")]
Once = Annotated[bool, typer.Option("--once", help="Show it once, as where this is no terminal.")]


def watch(run: RunFolderPath, every: Every = 2.0, once: Once = False) -> None:
    """Watch a run: curves, the last rollout, warnings, and the time that is left."""
    with setting_up():
        if not 0 < every < float("inf"):
            raise ValueError(f"--every must be a number of seconds above 0, got {every}.")
        from rich.console import Console
        from rich.live import Live

        from oprd.reports.terminal import screen
        from oprd.runs.folder import read_run

        found = read_run(run)
    console = Console()
    if once or not console.is_terminal:
        console.print(screen(found, console.width))
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        try:
            while True:
                live.update(screen(found, console.width), refresh=True)
                # One that has not begun yet may begin.
                if found.state in ("finished", "damaged", "not a run"):
                    return
                time.sleep(every)
                with setting_up():
                    found = read_run(run)
        except KeyboardInterrupt:
            return
