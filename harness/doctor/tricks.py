"""Which of the records' tricks pay on this machine, in words, from what was measured on it."""

from harness.doctor.report import size

PAYS = 1.05  # a factor within which two times count as equal


def tricks(kernels: list[dict], collectives: list[dict]) -> list[str]:
    """A sentence for each trick that the measured rows can tell about."""
    found = [*_fp8({row["name"]: row for row in kernels})]
    calls = {(row["name"], row["message"]): row for row in collectives if "bus_gb_s" in row}
    messages = list(dict.fromkeys(message for _, message in calls))
    for message in messages:
        found += _sharding(
            message, *(calls.get((name, message)) for name in ("all_reduce", "reduce_scatter", "all_gather"))
        )
    found += _bundling([calls["all_reduce", message] for message in messages if ("all_reduce", message) in calls])
    return [*found, *(_overlap(row) for row in collectives if "hidden" in row)]


def _fp8(kernels: dict[str, dict]) -> list[str]:
    fp8, bf16 = kernels.get("fp8_matmul", {}), kernels.get("bf16_matmul", {})
    if not ("ms" in fp8 and "ms" in bf16):
        return ["fp8 (from record 19): cannot be used here, the head runs in bf16"] if "unavailable" in fp8 else []
    factor = bf16["ms"] / fp8["ms"]
    return [f"fp8 (from record 19): a matmul is {factor:.2f} times as fast as in bf16: {_verdict(factor)}"]


def _sharding(message: str, whole: dict | None, scatter: dict | None, gather: dict | None) -> list[str]:
    """all_reduce against reduce_scatter and all_gather of the same bytes."""
    if not (whole and scatter and gather):
        return []
    factor = whole["ms"] / (scatter["ms"] + gather["ms"])
    times = f"{scatter['ms'] + gather['ms']:.3f} ms against {whole['ms']:.3f} ms for all_reduce"
    pays = {"it pays": "it pays", "it makes no difference": "no cost, and each rank updates its share alone: it pays"}
    verdict = pays.get(_verdict(factor), "it has to earn that back by sharing the update")
    return [f"reduce_scatter and all_gather (from record 24), {message}: {times}: {verdict}"]


def _bundling(calls: list[dict]) -> list[str]:
    """The smallest message against the largest, byte for byte."""
    if len(calls) < 2:
        return []
    least, most = (pick(calls, key=lambda row: row["bytes"]) for pick in (min, max))
    factor = (least["ms"] / least["bytes"]) / (most["ms"] / most["bytes"])
    said = f"a byte of {size(least['bytes'])} takes {factor:,.0f} times as long as one of {size(most['bytes'])}"
    return [f"small gradients bundled (record 22): {said}: {_verdict(factor)}"]


def _overlap(row: dict) -> str:
    # What is saved is net of what the matmuls lose, and sending early costs nothing else: a quarter is much.
    pays = "it pays" if row["hidden"] > 0.25 else "it pays little" if row["hidden"] > 0.05 else "it does not pay"
    said = f"behind matmuls, {row['hidden']:.0%} of the time of the all_reduce of {row['message']} is saved"
    return f"gradients sent during backward (from record 23): {said}: {pays}"


def _verdict(factor: float) -> str:
    return "it pays" if factor > PAYS else "it makes no difference" if factor > 1 / PAYS else "it does not pay"
