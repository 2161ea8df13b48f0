"""A diff drawn for a terminal: unified or side by side, coloured by pygments, readable without colour too."""

import io
from dataclasses import dataclass

from rich.console import Console
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Span, Text

from harness.archive.outline import lines_of
from harness.diff.diff import Line, SectionDiff
from harness.diff.hunks import Arrival, Fold, Heading, rows, side_by_side


@dataclass(frozen=True)
class Palette:
    """Colours for changed lines. Ink and ground are both set, so that any terminal's background will do."""

    theme: str
    ink: str
    gone: str
    gone_word: str
    come: str
    come_word: str
    moved: str


DARK = Palette("github-dark", "#e6edf3", "#3c1618", "#8e2f33", "#12301c", "#1d6a35", "#182c4a")
LIGHT = Palette("friendly", "#1f2328", "#ffebe9", "#ffb8b3", "#dafbe1", "#8ce3a2", "#ddf4ff")
MARGIN = 7  # width of line number and sign in a column of the side-by-side view
SIGNS = {"same": " ", "gone": "-", "come": "+"}


@dataclass(frozen=True)
class Options:
    """How a diff is drawn. `context`: unchanged lines around a change; `whole`: fold nothing that changed."""

    side_by_side: bool = False
    context: int = 3
    whole: bool = False
    light: bool = False
    colour: bool = True
    width: int = 120


class View:
    """Draws section diffs of two sources into one string."""

    def __init__(self, old: str, new: str, options: Options):
        self.options = options
        self.palette = LIGHT if options.light else DARK
        self.out = io.StringIO()
        self.console = Console(
            file=self.out,
            width=options.width,
            force_terminal=options.colour,
            color_system="truecolor" if options.colour else None,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self.old, self.new = self._highlighted(old), self._highlighted(new)

    def _highlighted(self, source: str) -> list[Text]:
        """The lines of a source with their syntax in coloured ink, and no ground of their own."""
        lines = lines_of(source)
        if self.options.colour:
            text = Syntax("", "python", theme=self.palette.theme).highlight("\n".join(lines))
            styles = [(span, self.console.get_style(span.style)) for span in text.spans]
            text.spans = [Span(span.start, span.end, Style(color=s.color, italic=s.italic)) for span, s in styles]
            text.style = ""
            coloured = text.split("\n", allow_blank=True)
            if len(coloured) >= len(lines):
                return list(coloured)
        return [Text(line) for line in lines]

    def text(self) -> str:
        """All that has been drawn."""
        return self.out.getvalue()

    def line(self, text: str | Text = "", style: str = "") -> None:
        """Draw one line of prose."""
        self.console.print(text, style=style, soft_wrap=True)

    def section(self, part: SectionDiff) -> None:
        """Draw one section under its title; one without changes is a line."""
        if not part.changed:
            self.line(f"── {part.title} · unchanged, {len(part.lines)} lines", "dim")
            return
        self.line()
        self.line(f"━━ {part.title} ".ljust(self.options.width, "━"), "bold")
        block: list[Line] = []
        for row in rows(part, self.options.context, self.options.whole):
            if isinstance(row, Line):
                block.append(row)
                continue
            self._lines(block)
            block = []
            self._between(row)
        self._lines(block)

    def _between(self, row: Fold | Heading | Arrival) -> None:
        """Draw what stands between the lines of a diff."""
        if isinstance(row, Heading):
            self.line(f"{'':9} @ {row.text}", "bold cyan")
        elif isinstance(row, Arrival):
            self.line(f"{'':9} » {row.text}", "blue")
        elif row.reason == "away":
            self.line(f"{row.lines[0].old:>4}      « {row.text}", "blue")
        else:
            self.line(f"{'⋯':>9} {row.text}", "dim")

    def _lines(self, block: list[Line]) -> None:
        if self.options.side_by_side:
            for left, right in side_by_side(block):
                self._facing(left, right)
        else:
            for line in block:
                numbers = f"{line.old or '':>4} {line.new or '':>4} "
                self._draw(self._filled(self._painted(line, numbers)))

    def _draw(self, text: Text) -> None:
        self.console.print(text, soft_wrap=True)

    def _facing(self, left: Line | None, right: Line | None) -> None:
        """One row of two columns; long lines go on below, in their own column and under their own beginning."""
        half = (self.options.width - 1) // 2
        columns = [self._column(left, left and left.old, half), self._column(right, right and right.new, half)]
        for index in range(max(map(len, columns))):
            pieces = [column[index] if index < len(column) else Text(" " * half) for column in columns]
            self._draw(Text.assemble(pieces[0], ("│", "dim"), pieces[1]))

    def _column(self, line: Line | None, number: int | None, width: int) -> list[Text]:
        """One side of a row, as many lines of `width` characters as it takes."""
        if line is None:
            return []
        painted = self._painted(line, f"{number or '':>4} ")
        margin, code = painted.divide([MARGIN])
        pieces = code.wrap(self.console, width - MARGIN, overflow="fold", tab_size=4) or [Text()]
        for index, piece in enumerate(pieces):
            piece.pad_right(max(0, width - MARGIN - piece.cell_len))
            pieces[index] = Text.assemble(margin if index == 0 else " " * MARGIN, piece, style=painted.style)
        return list(pieces)

    def _ground(self, line: Line) -> str:
        """Style of a changed line as a whole."""
        palette = self.palette
        ground = palette.moved if line.moved else palette.come if line.kind == "come" else palette.gone
        return f"{palette.ink} on {ground}"

    def _painted(self, line: Line, numbers: str) -> Text:
        """Numbers, sign and code of one line; a changed one has a coloured ground, its changed words a stronger one."""
        if line.kind == "same":
            return Text(f"{numbers}  {line.text}", style="dim")
        source = self.old[line.old - 1] if line.kind == "gone" else self.new[line.new - 1]
        sign = ("»" if line.kind == "come" else "«") if line.moved else SIGNS[line.kind]
        text = Text(f"{numbers}{sign} ", style=self._ground(line))
        start = len(text)
        text.append_text(source)
        strong = self.palette.come_word if line.kind == "come" else self.palette.gone_word
        for first, last in line.words:
            text.stylize(f"bold on {strong}", start + first, start + last)
        return text

    def _filled(self, text: Text) -> Text:
        """`text` with its coloured ground drawn out to the right margin."""
        if self.options.colour and text.style != "dim":
            text.pad_right(max(0, self.options.width - text.cell_len))
        return text
