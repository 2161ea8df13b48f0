"""Every known dialect of training log, from a file to a frozen `Run`."""
import hashlib
import re
from dataclasses import fields
from pathlib import Path

import numpy as np

from timing.environment import read_environment
from timing.layout import find_layout, split_helpers
from timing.metrics import scan
from timing.run import LogError, Note, Run
from timing.text import printable

__all__ = ["LogError", "Note", "Run", "printable", "read_log", "read_logs"]
_PEAK = re.compile(rb"peak memory (?:allocated|consumption): (\d{1,12}) MiB")


def read_log(path) -> Run:
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise LogError(f"{printable(str(path), 300)}: cannot be read: {e.strerror}") from None
    s = scan(data)
    lay = find_layout(data, s.banners)
    keep = {k: [r for r in v if r[4] >= lay.environment_line] for k, v in s.rows.items()}
    allrows = sorted((r[4], r) for v in keep.values() for r in v)
    if not allrows and not s.banners:
        raise LogError(f"{printable(str(path), 300)}: no metric line (step:1/100 train_time:... or s:1 tel:...) in it; is it a speedrun log?")
    m = re.compile(rb"^(?:step:\d+/\d+ |s:\d+ t(?:el|rl):)", re.M).search(data, lay.environment_start)
    env_text = data[lay.environment_start: m.start() if m else len(data)][:256 << 10].decode(errors="replace").replace("\r\n", "\n")
    env = read_environment(env_text)
    values = {f.name: None for f in fields(Run)}
    values.update(env.facts)
    cols = {}
    for kind in ("val", "train"):
        rows = keep[kind]
        for j, (name, t) in enumerate([("step", np.int64), ("loss", float), ("time_ms", float), ("step_avg_ms", float), ("line", np.int64)]):
            cols[f"{kind}_{name}"] = np.array([r[j] for r in rows], t)
    values.update(cols)
    src = data[lay.source_start:lay.source_end]
    parts = split_helpers(src) if lay.source_line else []
    notes = [Note(*f) for f in s.faults] + [Note(a + lay.environment_line - 1, b) for a, b in env.odd]
    peak = [mm for i, raw in s.peaks if (mm := _PEAK.match(raw))]
    steps = np.sort(cols["val_line"])
    restart = [int(cols["val_line"][i + 1]) for i in np.flatnonzero(np.diff(cols["val_step"]) < 0)]
    values.update(
        path=str(path), dialect="llmc" if allrows and allrows[-1][1][5] is None else "step",
        planned_steps=allrows[-1][1][5] if allrows else None,
        source=parts[0].content.decode(errors="replace") if parts else None,
        helpers={p.name: p.content.decode(errors="replace") for p in parts[1:]},
        source_sha256=hashlib.sha256(src).hexdigest() if parts else None, source_line=lay.source_line,
        overrides=env.overrides, peak_memory_mib=int(peak[-1][1]) if peak else None,
        telemetry_line=np.array(s.telemetry, np.int64), fallbacks=tuple(Note(i, printable(r.decode(errors="replace"), 300)) for i, r in s.fallbacks),
        restart_line=np.array(restart, np.int64), lines=s.lines, bytes=len(data), digest=hashlib.sha256(data).hexdigest(),
        env_line={k: v + lay.environment_line - 1 for k, v in env.line.items()}, notes=tuple(notes))
    return Run(**values)


def read_logs(paths, workers=None):
    out = []
    for path in paths:
        path = Path(path)
        for p in sorted(q for q in path.rglob("*") if q.suffix in (".txt", ".log")) if path.is_dir() else [path]:
            try:
                out.append(read_log(p))
            except LogError as e:
                out.append(e)
    return out
