"""What the terminal shows: live where it can, a line now and then where it cannot."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent_sdk.demo.story import Story
from agent_sdk.types import TimelineItem

COLOURS = {
    "completed": "green", "in_progress": "yellow", "ready": "cyan", "blocked": "magenta",
    "failed": "red", "canceled": "red",
}  # fmt: skip
LEASES_SHOWN = 8


class Screen:
    """Draws a story."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._last = ""
        self._fate = ""

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Within, `show` draws over what it drew before, where the terminal can do that."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            self._live = live
            yield
        self._live = None

    def say(self, text: str, style: str = "") -> None:
        """A line that stays."""
        self.console.print(Text(text, style), soft_wrap=True)

    def show(self, story: Story, victim: str | None) -> None:
        """The state of things; `victim` is the task whose agent was killed."""
        if victim is not None and (fate := story.tasks[victim].fate) != self._fate:
            self._fate = fate
            self.say(fate, "yellow")
        if self._live is not None:
            self._live.update(_picture(story, victim), refresh=True)
            return
        counts = story.counts()
        # Without a terminal: one line per tenth of the work, not one per look.
        tenth = 10 * counts["completed"] // max(len(story.tasks), 1)
        if (line := f"{tenth * 10:3} % done") != self._last:
            self._last = line
            told = ", ".join(f"{counts[name]} {name}" for name in COLOURS if counts[name])
            self.say(f"{line}: {told}; {len(story.held)} leases held")

    def timeline(self, title: str, items: list[TimelineItem], names: Mapping[str, str]) -> None:
        """A task's own events as a table; `names` are those of the sessions."""
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in ("seq", "at", "event", "who", "fence"):
            table.add_column(column, justify="right" if column in ("seq", "at") else "left")
        began = items[0].timestamp if items else None
        for item in items:
            at = f"+{(item.timestamp - began).total_seconds():.2f} s" if began else ""
            who = names.get(item.actor.ref, item.actor.ref) if item.actor else ""
            fence = (item.payload or {}).get("fence")  # a large payload is left out
            shown = item.event_type.removeprefix("task.")
            table.add_row(str(item.sequence), at, shown, who, "" if fence is None else str(fence))
        self.console.print(table)


def _picture(story: Story, victim: str | None) -> RenderableType:
    counts = story.counts()
    told = Text.assemble(
        *((f"{counts[name]} {name}  ", COLOURS[name]) for name in COLOURS if counts[name])
    )
    table = Table(box=None, pad_edge=False, show_edge=False)
    for column in ("agent", "holds", "fence", "for"):
        table.add_column(column, style="dim" if column == "for" else "", no_wrap=True)
    for held in sorted(story.held.values(), key=lambda held: held.agent)[:LEASES_SHOWN]:
        age = (story.now - held.since).total_seconds() if story.now else 0.0
        title = story.tasks[held.task_id].title
        dead = held.task_id == victim and held.fence == story.tasks[held.task_id].fences[0]
        style = "red" if dead else None
        table.add_row(held.agent, title, str(held.fence), f"{age:.1f} s", style=style)
    bar = ProgressBar(total=max(len(story.tasks), 1), completed=counts["completed"], width=60)
    picture = Table.grid()
    for part in (bar, told, table):
        picture.add_row(part)
    return picture
