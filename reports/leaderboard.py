"""The leaderboard as markdown, CSV and JSON, and put into a page between two markers."""

import json
import re

import pandas as pd


def markers(name: str) -> tuple[str, str]:
    """The lines that a page has before and after the generated table of this name."""
    return f"<!-- {name}:start -->", f"<!-- {name}:end -->"


START, END = markers("leaderboard")
COLUMNS = (
    *(
        "number",
        "date",
        "title",
        "listed_minutes",
        "logged_minutes",
        "logged_std",
        "runs",
        "mean_loss",
        "std_loss",
        "p",
    ),
    *("steps", "step_ms", "tokens_per_step", "tokens", "torch", "credit", "source", "slug", "disagrees"),
)
DIGITS = {"logged_minutes": 4, "logged_std": 4, "mean_loss": 5, "std_loss": 5, "p": 6, "step_ms": 2}
FULL = (
    *("Record", "Date", "What was new", "Listed min", "Logged min (n)", "Loss (n)", "p", "Steps", "ms/step", "Tokens"),
    *("Credit", "What disagrees"),
)
COMPACT = ("Record", "Date", "What is new", "Minutes", "Steps", "ms/step", "Credit")


class NoMarkers(ValueError):
    """A page without the pair of markers."""


def to_csv(table: pd.DataFrame) -> str:
    """Comma-separated values, one row a record; empty where unknown, disagreements joined by semicolons."""
    flat = _rounded(table).assign(disagrees=table.disagrees.map("; ".join))
    return flat.to_csv(index=False, lineterminator="\n", date_format="%Y-%m-%d")


def to_json(table: pd.DataFrame) -> str:
    """A list of objects; null where unknown, `disagrees` a list."""
    rows = json.loads(_rounded(table).drop(columns="disagrees").to_json(orient="records", date_format="iso"))
    for row, day, sentences in zip(rows, table.date, table.disagrees, strict=True):
        row |= {"date": f"{day:%Y-%m-%d}", "disagrees": list(sentences)}
        row |= {
            name: int(row[name]) for name in ("runs", "steps", "tokens_per_step", "tokens") if row[name] is not None
        }
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    return table[list(COLUMNS)].round(DIGITS).astype(dict.fromkeys(("steps", "tokens_per_step", "tokens"), "Int64"))


def to_markdown(table: pd.DataFrame, compact: bool = False, base: str = "records") -> str:
    """A markdown table; `compact` for a README. Records in the archive link to their folder below `base`."""
    head, cells = (COMPACT, _compact_cells) if compact else (FULL, _full_cells)
    lines = [list(head), ["---:" if name in _NUMERIC else "---" for name in head]]
    lines += [cells(row, base) for row in table.itertuples()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


_NUMERIC = {"Minutes", "Steps", "ms/step", "Listed min", "Logged min (n)", "Loss (n)", "p", "Tokens"}


def _compact_cells(row, base: str) -> list[str]:
    link = link_to(row.title, f"{base}/{row.slug}/train.py".lstrip("/") if row.slug else row.source)
    return [
        text(row.number),
        f"{row.date:%Y-%m-%d}",
        link,
        number(row.listed_minutes, ".4g"),
        number(row.steps, ",.0f"),
        number(row.step_ms, ".1f"),
        text(row.credit),
    ]


def _full_cells(row, base: str) -> list[str]:
    name = link_to(row.number, f"{base}/{row.slug}".lstrip("/")) if row.slug else text(row.number)
    runs = f" ({row.runs})" if row.runs else ""
    return [
        name,
        f"{row.date:%Y-%m-%d}",
        link_to(row.title, row.source),
        number(row.listed_minutes, ".4g"),
        number(row.logged_minutes, ".3f") + spread(row.logged_std, ".3f") + runs,
        number(row.mean_loss, ".4f") + spread(row.std_loss, ".4f") + runs,
        text(p_text(row.p)),
        number(row.steps, ",.0f"),
        number(row.step_ms, ".2f"),
        number(row.tokens / 1e6, ",.0f") + ("M" if row.tokens > 0 else ""),
        text(row.credit),
        text("; ".join(row.disagrees)),
    ]


def number(value: float, how: str) -> str:
    """A figure in this format, nothing where it is unknown."""
    return "" if value is None or pd.isna(value) else format(value, how)


def spread(value: float, how: str) -> str:
    """` ± 0.0011`, nothing for a single run."""
    return "" if pd.isna(value) else f" ± {value:{how}}"


def p_text(value: float) -> str:
    """`0.0070`, and below that `< 0.0001`."""
    if pd.isna(value):
        return ""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def text(value: object) -> str:
    """Text that stays text in a table cell: no markup, no HTML, no line break, no mention that notifies anybody."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    flat = re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", flat)
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?i)\b(https?|ftp|www)(:|\.)", "\\1\u200b\\2", flat)


def link_to(words: object, target: str) -> str:
    """A markdown link if the target is a path of ours or an https address, else the words alone."""
    if re.fullmatch(r"https://[\w.\-/#?=&%~]+|[\w\-./]+", target or ""):
        return f"[{text(words)}]({target})"
    return text(words)


def splice(page: str, table: str, name: str = "leaderboard") -> str:
    """The page with `table` between its markers. Raises NoMarkers if it does not have just that pair, in order."""
    start, end = markers(name)
    if page.count(start) != 1 or page.count(end) != 1 or page.index(start) > page.index(end):
        raise NoMarkers(f"needs one line {start} and below it one line {end}")
    before, rest = page.split(start)
    return f"{before}{start}\n{table.rstrip()}\n{end}{rest.split(end)[1]}"
