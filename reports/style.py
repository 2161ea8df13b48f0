"""How every chart looks: two themes, two sizes, and bytes that depend on the data alone.

A chart is drawn inside `drawing(theme, size)` and turned into bytes by `to_bytes`. Nothing in the output depends on the
day, the machine or the installed fonts: DejaVu Sans comes with matplotlib, SVG text is drawn as outlines (labels placed
by measuring them must not be set in another font), and dates and version strings are left out.
"""

import io
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SALT = "speedrun-archive"


@dataclass(frozen=True)
class Theme:
    """Colours as hex strings. `accent` and `second` differ in lightness too, so that the charts work in grey."""

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    bands: tuple[str, str, str]
    accent: str
    second: str
    target: str


@dataclass(frozen=True)
class Size:
    """A canvas in inches with its type sizes in points. `column` is one column of a two-column paper."""

    name: str
    width: float
    height: float
    dpi: int
    title: float
    text: float
    small: float
    line: float
    marker: float

    @property
    def is_column(self) -> bool:
        """Whether this is the narrow canvas, where charts say less."""
        return self.name == "column"


LIGHT = Theme(
    "light",
    "#ffffff",
    "#16202b",
    "#56616d",
    "#dfe4e9",
    ("#f1f4f8", "#e2e8ef", "#f8f4ec"),
    "#0b57a8",
    "#b85c00",
    "#a8174b",
)
DARK = Theme(
    "dark",
    "#0f151c",
    "#edf1f5",
    "#a3afbb",
    "#2b3540",
    ("#17202a", "#222d39", "#211f1a"),
    "#7abcff",
    "#c97a1e",
    "#ff7b9c",
)
SLIDE = Size("slide", 13.333, 7.5, 150, title=25, text=13.5, small=11, line=2.6, marker=7.5)
COLUMN = Size("column", 3.5, 3.1, 300, title=9.2, text=6.6, small=5.8, line=1.1, marker=3.2)

THEMES = {theme.name: theme for theme in (LIGHT, DARK)}
SIZES = {size.name: size for size in (SLIDE, COLUMN)}


@contextmanager
def drawing(theme: Theme, size: Size):
    """Matplotlib's settings for one chart; drawing and saving both belong inside."""
    with matplotlib.rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": size.text,
            "text.color": theme.ink,
            "text.parse_math": False,  # a record's title may contain a dollar sign
            "axes.facecolor": theme.paper,
            "axes.edgecolor": theme.grid,
            "axes.labelcolor": theme.muted,
            "axes.labelsize": size.text,
            "axes.linewidth": size.line * 0.35,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.unicode_minus": True,
            "figure.facecolor": theme.paper,
            "savefig.facecolor": theme.paper,
            "grid.color": theme.grid,
            "grid.linewidth": size.line * 0.35,
            "hatch.linewidth": size.line * 0.35,
            "hatch.color": theme.paper,
            "lines.linewidth": size.line,
            "xtick.color": theme.muted,
            "ytick.color": theme.muted,
            "xtick.labelsize": size.text,
            "ytick.labelsize": size.text,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "xtick.minor.size": 0,
            "ytick.minor.size": 0,
            "svg.fonttype": "path",
            "svg.hashsalt": SALT,
            "path.simplify": False,
        }
    ):
        yield


def new_figure(size: Size, height: float | None = None) -> Figure:
    """An empty figure of this size; `height` in inches where a chart needs another one."""
    figure = Figure(figsize=(size.width, height or size.height), dpi=size.dpi)
    FigureCanvasAgg(figure)  # measures texts, for SVG as well, so that both formats have the same layout
    return figure


def headline(figure: Figure, size: Size, theme: Theme, title: str, subtitle: str, source: str) -> None:
    """Title and subtitle at the upper left, source line at the lower left; the latter two wrapped to the canvas."""
    width, height = figure.get_size_inches() * 72
    left = size.text * 1.1 / width
    top = 1 - size.text * 0.9 / height
    figure.text(left, top, title, fontsize=size.title, fontweight="bold", va="top")
    below = top - (size.title * 1.28 * (1 + title.count("\n")) + size.text * 0.15) / height
    quiet = {"color": theme.muted, "linespacing": 1.3}
    figure.text(left, below, wrapped(subtitle, width / size.text), fontsize=size.text, va="top", **quiet)
    figure.text(left, size.small * 0.8 / height, wrapped(source, width / size.small), fontsize=size.small, **quiet)


def wrapped(text: str, ems: float) -> str:
    """`text` in lines of at most `ems` times the type size, 0.54 em a letter, with a margin at either side."""
    return "\n".join(textwrap.fill(line, int((ems - 2.5) / 0.54)) for line in text.split("\n"))


def to_bytes(figure: Figure, kind: str, title: str = "") -> bytes:
    """The figure as `svg` or `png` bytes, without dates or versions inside."""
    buffer = io.BytesIO()
    if kind == "svg":
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=empty | {"Title": title})
    else:
        figure.savefig(buffer, format=kind, metadata={"Software": None} | ({"Title": title} if title else {}))
    return buffer.getvalue()


def measure(figure: Figure, artist):
    """The artist's extent in pixels."""
    return artist.get_window_extent(figure.canvas.get_renderer())


def series_styles(theme: Theme, size: Size, count: int) -> list[dict]:
    """`count` line styles that differ in colour, in dashes and in markers, so that any one of the three suffices."""
    colours = (theme.accent, theme.second, theme.muted, theme.ink, theme.target)
    dashes = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))
    markers = ("o", "s", "^", "D", "v", "P", "X")
    return [
        {
            "color": colours[index % len(colours)],
            "ls": dashes[index % len(dashes)],
            "marker": markers[index % len(markers)],
            "ms": size.marker * 0.55,
            "markevery": 4,
            "lw": size.line * 0.7,
        }
        for index in range(count)
    ]
