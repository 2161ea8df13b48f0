"""Which track of the speedrun a log belongs to, by its source and its settings: each is judged by rules of its own."""

from harness.referee.checks import Case
from harness.referee.source.rules import facts_of, place
from harness.referee.submission import Arm, Entry
from harness.referee.verdict import PASS, UNKNOWN, Check
from timing.rules import Edition
from timing.tracks import MEDIUM, MEDIUM_DIM, STEPS, on_track


def rules_for(arm: Arm, edition: Edition) -> Edition:
    """`edition`, of the track that all runs of an arm belong to; track 1's where they differ."""
    tracks = {recognise(entry)[0] for entry in arm.entries}
    return on_track(edition, tracks.pop() if len(tracks) == 1 else "")


def recognise(entry: Entry) -> tuple[str, str]:
    """(track, what shows it, with its place); ("", ...) for track 1.

    Track 2's model is 1024 wide. Track 3's scripts print one line of environment with the device's name and no table of
    nvidia-smi, and say before the first step at which they will stop.
    """
    run = entry.run
    for width, module, line in (facts_of(run) or {}).get("widths", []):
        if width == MEDIUM_DIM:
            return MEDIUM, f"a model {width} wide ({place(entry, module, line)})"
    for name in ("model_dim", "n_embd"):
        if run.overrides.get(name) == str(MEDIUM_DIM):
            return MEDIUM, f"{name}={MEDIUM_DIM} ({entry.at(run.env_line.get(f'override {name}'))})"
    if run.stop_step is not None:
        return STEPS, f"run_stop_step={run.stop_step} ({entry.at(run.env_line.get('stop_step'))})"
    if run.device and not run.gpu:
        return STEPS, f"its line of environment ({entry.at(run.env_line.get('device'))})"
    return "", f"nothing says otherwise ({entry.at(run.source_line)})"


def check_track(case: Case) -> Check:
    """Which track's rules apply, and what shows it; one run may not bring other rules to its fellows."""
    shown = {track: why for track, why in map(recognise, reversed(case.entries))}
    if len(shown) > 1:
        said = "; ".join(f"{track or 'track 1'}: {why}" for track, why in sorted(shown.items()))
        return case.check("track", UNKNOWN, f"the runs are of several tracks: {said}", decisive=True)
    if not case.edition.track:
        return case.check("track", PASS, f"track 1: nothing says otherwise ({case.first(lambda run: run.source_line)})")
    return case.check("track", PASS, f"{case.edition.track}, judged by its own rules: {recognise(case.entries[0])[1]}")
