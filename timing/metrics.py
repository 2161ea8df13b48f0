"""quick"""
import numpy as np
from dataclasses import dataclass, field
from timing.layout import Banner, BANNER
from timing.lines import parse_line

@dataclass
class Scan:
    rows: dict
    banners: list
    telemetry: list
    fallbacks: list
    peaks: list
    faults: list
    lines: int

def scan(data: bytes) -> Scan:
    rows = {"val": [], "train": []}
    out = Scan(rows, [], [], [], [], [], 0)
    offset = 0
    chunks = data.split(b"\n")
    terminated = chunks[-1] == b""
    if terminated:
        chunks.pop()
    out.lines = len(chunks)
    for i, raw in enumerate(chunks, 1):
        last = i == len(chunks)
        if raw[:5] == b"step:" or raw[:2] == b"s:":
            m = parse_line(raw.rstrip(b"\r"), terminated or not last)
            if m and m.fault:
                out.faults.append((i, m.fault))
            if m and m.kind:
                rows[m.kind].append((m.step, m.loss, m.time_ms, m.step_avg_ms, i, m.planned))
        elif raw.rstrip(b"\r ") == BANNER:
            out.banners.append(Banner(offset, i))
        elif raw[:10] == b"telemetry ":
            out.telemetry.append(i)
        elif raw[:9] == b"fallback ":
            out.fallbacks.append((i, raw))
        elif raw[:12] == b"peak memory ":
            out.peaks.append((i, raw))
        offset += len(raw) + 1
    return out
