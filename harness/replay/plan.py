"""What a replay will do, settled before anything starts: ranks, settings, data, and what the result is worth."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from harness.archive import places
from harness.archive.record import FACTS, Record
from harness.archive.settings import Setting, as_arguments, check, parse_assignments, read_settings
from harness.errors import UserError
from harness.machine import Machine
from harness.replay.anomaly import Curve
from harness.replay.fidelity import FINEWEB, WORLD_SIZES, Circumstances, Label, fidelity
from harness.replay.memory import check_memory
from harness.replay.torchrun import Nodes
from harness.tokens.manifest import Manifest, read_manifest

MOST_SEED = 2**63
# A learning rate's schedule, counted in steps. From era B on, `warmup_iterations` are untimed steps before it instead.
SCHEDULE = ("num_iterations", "cooldown_iterations", "extension_iterations")
ERA_A_SCHEDULE = (*SCHEDULE, "warmup_iterations")


@dataclass(frozen=True)
class Options:
    """What the user asked for. None means: as the record and the machine have it."""

    gpus: int | None = None
    runs: int = 1
    fresh: bool = False
    scale: float = 1.0
    assignments: tuple[str, ...] = ()
    seed: int | None = None
    data_dir: Path | None = None
    telemetry: int = 0
    watch: bool = False
    guard: bool = False
    on_anomaly: str | None = None
    nnodes: int = 1
    node_rank: int = 0
    rdzv_endpoint: str = ""
    stall_timeout: float = 900.0
    runs_dir: Path = field(default_factory=places.runs_dir)
    smoke: bool = False
    trust: bool = False
    repeat: bool = False
    nearest: bool = False
    dry_run: bool = False

    @property
    def watching(self) -> str | None:
        """What is done about an anomaly, stop, fallback or continue; None where nobody watches."""
        return self.on_anomaly or ("stop" if self.watch or self.guard else None)

    @property
    def nodes(self) -> Nodes:
        """Where this machine stands among several."""
        return Nodes(self.nnodes, self.node_rank, self.rdzv_endpoint)


@dataclass(frozen=True)
class Plan:
    """Runs of one kind. `ranks` are those of this machine; `settings` is None for a script that takes none.

    `steps` counts the training steps of a run, None where the script does not tell. `gpu` says that CUDA is used.
    """

    record: Record
    label: Label
    ranks: int
    nodes: Nodes
    gpu: bool
    settings: dict[str, Setting] | None
    overrides: dict[str, object]
    seed: int | None
    telemetry: int
    data_dir: Path
    steps: int | None
    stall_timeout_s: float
    script_sha256: str
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def world_size(self) -> int:
        """Ranks of all nodes together."""
        return self.ranks * self.nodes.count

    @property
    def smoke(self) -> bool:
        """Whether this is a smoke replay."""
        return self.label.name == "smoke"

    @property
    def reference(self) -> Curve:
        """The published curve where this run is to follow it: the record's own steps on FineWeb. Else ()."""
        own = self.label.name in ("official", "same-batch") and self.steps == self.record.listed.steps
        return self.record.curve if own else ()

    def seed_of(self, run: int) -> int | None:
        """The seed of run number `run`, counted from 0; None leaves it to the script."""
        return None if self.seed is None else self.seed + run

    def arguments(self, log_file: Path, run: int = 0) -> list[str]:
        """The script's command line."""
        if self.settings is None:
            return []
        common = {"data_dir": self.data_dir.absolute(), "log_file": log_file.absolute()}
        if self.seed is not None:
            common["seed"] = self.seed_of(run)
        if self.telemetry:
            common["telemetry_every"] = self.telemetry
        return as_arguments({**common, **self.overrides})

    def digest(self, manifest: Manifest | None) -> str:
        """What two runs must share to count as runs of one plan."""
        facts = [self.script_sha256, self.overrides, self.seed, self.telemetry, self.label.name, self.ranks]
        facts += [self.nodes.count, manifest.digest if manifest else None, self.gpu]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def make_plan(record: Record, options: Options, machine: Machine) -> Plan:
    """Settle all questions that can be settled before data is fetched. Raises UserError for what cannot be run."""
    _check_options(options)
    settings = read_settings(record.script)
    cuda = bool(machine.gpus)
    smoke = options.smoke or not cuda
    if settings is None and smoke:
        raise UserError(
            f"{record.script} takes no settings, so it has no toy size: it runs on CUDA, at the size that its author "
            f"gave it{'' if cuda else ', and there is no CUDA here'}"
        )
    ranks = _ranks(record, options, machine, smoke)
    given = parse_assignments(options.assignments, settings)
    altered, notes = bool(given), []
    sha256 = record.script_sha256()
    if record.sha256 and sha256 != record.sha256:
        altered = True
        notes.append(f"{record.script.name} is not the frozen script of {record.label}: this is no record run")
    data_dir, corpus = _data(options, smoke)
    used = machine.gpus[:ranks]
    overrides = _overrides(record, settings, given, options, smoke)
    steps = _steps(settings, overrides)
    telemetry = options.telemetry or (_watchful(steps) if options.guard else 0)
    label = fidelity(
        Circumstances(
            cuda=cuda,
            hopper=all(gpu.hopper for gpu in used),
            ranks=ranks * options.nodes.count,
            corpus=corpus,
            scale=options.scale,
            altered=altered,
            telemetry=bool(telemetry),
            smoke=smoke,
            foreign=settings is None,
        )
    )
    if not smoke and not altered:
        check_memory(record, settings, used)
    return Plan(
        record=record,
        label=label,
        ranks=ranks,
        nodes=options.nodes,
        gpu=cuda,
        settings=settings,
        overrides=overrides,
        seed=options.seed,
        telemetry=telemetry,
        data_dir=data_dir,
        steps=steps,
        stall_timeout_s=options.stall_timeout,
        script_sha256=sha256,
        notes=tuple(notes),
    )


def _check_options(options: Options) -> None:
    """Raises UserError for what no machine could run."""
    if options.node_rank >= options.nnodes:
        last = f"of {options.nnodes} nodes (--nnodes) the last is {options.nnodes - 1}"
        raise UserError(f"--node-rank {options.node_rank}: {last}")
    if options.seed is not None and options.seed + options.runs > MOST_SEED:
        raise UserError(f"--seed {options.seed}: with the runs that count up from it, it must stay below 2**63")
    if options.data_dir is not None and not options.data_dir.is_dir():
        made = f"`harness data --data-dir {options.data_dir}` makes and fills it"
        raise UserError(f"--data-dir {options.data_dir}: no such folder; {made}")


def _ranks(record: Record, options: Options, machine: Machine, smoke: bool) -> int:
    """Ranks on this machine. Raises UserError for a world size that the record contract does not know."""
    present = len(machine.gpus)
    if options.gpus is not None:
        ranks = options.gpus
    elif smoke:
        ranks = min(record.smoke_gpus, present) if present else record.smoke_gpus
    else:
        ranks = max(size for size in WORLD_SIZES if size <= present)
    if present and ranks > present:
        raise UserError(f"--gpus {ranks}: this machine has {present} (`harness doctor` lists them)")
    if ranks * options.nodes.count not in WORLD_SIZES:
        raise UserError(f"{ranks * options.nodes.count} ranks: a record runs on 1, 2, 4 or 8 (--gpus times --nnodes)")
    return ranks


def _data(options: Options, smoke: bool) -> tuple[Path, str]:
    """The data folder, and the name of the corpus that is, or will be, in it."""
    if smoke:
        return options.data_dir or places.data_dir("synthetic"), "synthetic"
    data_dir = options.data_dir or places.data_dir(FINEWEB)
    manifest = read_manifest(data_dir)
    if manifest:
        return data_dir, manifest.name
    return data_dir, "" if any(data_dir.glob("fineweb_train_*.bin")) else FINEWEB


def _overrides(record: Record, settings, given: dict, options: Options, smoke: bool) -> dict[str, object]:
    """All settings that differ from the record's: those of its smoke test, of --scale and of --set, in this order."""
    overrides = dict(record.smoke) if smoke else {}
    if settings is None:
        if given or options.scale != 1.0 or options.seed is not None or options.telemetry:
            raise UserError(
                f"{record.script} has no dataclass `Settings`: it takes no --set, --scale, --seed, --telemetry"
            )
        return {}
    for name, value in overrides.items():
        try:
            check(name, value, settings)
        except UserError as error:
            raise UserError(f"{record.folder / FACTS}, [smoke]: {error}") from None
    if options.scale != 1.0:
        overrides |= _scaled(settings, overrides, options.scale)
    return overrides | given


def _scaled(settings: dict[str, Setting], overrides: dict, factor: float) -> dict[str, int]:
    """The schedule's steps and those of its parts, times a factor."""
    if not 0 < factor <= 100:
        raise UserError(f"--scale {factor}: a positive factor on the record's steps, such as 0.1")
    names = ERA_A_SCHEDULE if "untimed_iterations" in settings else SCHEDULE
    counts = {name: int(overrides.get(name) or settings[name].default) for name in names if name in settings}
    return {name: max(1, round(count * factor)) for name, count in counts.items()}


def _watchful(steps: int | None) -> int:
    """Steps between telemetry lines for --guard: ten times a run at least, and sparsely, since they cost time."""
    return min(100, max(1, steps // 10)) if steps else 0


def _steps(settings: dict[str, Setting] | None, overrides: dict) -> int | None:
    if settings is None or "num_iterations" not in settings:
        return None
    steps = overrides.get("num_iterations", settings["num_iterations"].default)
    return None if steps is None else int(steps)
