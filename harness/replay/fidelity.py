"""What a replay is worth: its label, and what the label does not prove."""

from dataclasses import dataclass

FINEWEB = "fineweb10B"
WORLD_SIZES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Label:
    """A grade of replay: what a run of this kind is, what it proves and what it does not."""

    name: str
    means: str
    proves: str
    not_proved: str

    def sentence(self) -> str:
        """One line for the screen."""
        but = f", not {self.not_proved}" if self.not_proved else ""
        return f"{self.name} replay ({self.means}): it proves {self.proves}{but}"


LABELS = {
    label.name: label
    for label in (
        Label("official", "8 Hopper GPUs, FineWeb, no override", "a time and a loss", ""),
        Label("same-batch", "FineWeb, no override, not the timed 8-GPU setup", "the loss", "the time"),
        Label("stand-in", "real size, another corpus", "speed and stability", "the loss target"),
        Label(
            "shortened", "other steps, settings or code than the record's", "the code path at full size", "loss or time"
        ),
        Label(
            "as-found",
            "someone's script as it is: its data, batch and clock are its own affair",
            "that the script runs here",
            "that it is a record, its time or its loss",
        ),
        Label("smoke", "toy size, synthetic tokens", "that the script runs and learns", "its speed or its loss"),
    )
}


@dataclass(frozen=True)
class Circumstances:
    """All that the label depends on.

    cuda: there is a usable GPU.  hopper: all GPUs used are of the Hopper generation.  ranks: of all nodes together.
    corpus: name in the data folder's manifest, "" without one.  scale: factor on `num_iterations`.
    foreign: the script takes no settings, so that nothing is known of what it does.
    altered: a setting of the record was changed, or its frozen script.  telemetry: figures were logged on the clock.
    """

    cuda: bool
    hopper: bool = True
    ranks: int = 8
    corpus: str = FINEWEB
    scale: float = 1.0
    altered: bool = False
    telemetry: bool = False
    smoke: bool = False
    foreign: bool = False


def fidelity(now: Circumstances) -> Label:
    """The label that a run under these circumstances deserves: the first of these that applies."""
    if now.smoke or not now.cuda:
        return LABELS["smoke"]
    if now.foreign:
        return LABELS["as-found"]
    if now.altered or now.scale != 1.0:
        return LABELS["shortened"]
    if now.corpus != FINEWEB:
        return LABELS["stand-in"]
    if now.ranks == 8 and now.hopper and not now.telemetry:
        return LABELS["official"]
    return LABELS["same-batch"]


def in_company(label: Label) -> Label:
    """What a run of this label is worth when another replay ran on the machine meanwhile: its time proves nothing."""
    return LABELS["same-batch"] if label.name == "official" else label
