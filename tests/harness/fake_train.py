"""A train script without a model: it speaks the dialect of the records, and misbehaves on demand.

`--do` one of: finish, crash (rank 1 raises), killed (rank 1 is, by a signal), bad_input (one line of error), stall,
fallback (a line of it), sleep (a stall with a child process), stop_early (exit 0 without the final validation),
diverge (the loss ends as nan).
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What the harness may override."""

    data_dir: str = "data/fineweb10B"
    log_file: str = "log.txt"
    num_iterations: int = 10
    val_tokens: int = 10485760
    val_loss_every: int = 2
    seed: int = -1
    telemetry_every: int = 0
    fp8: bool = True
    do: str = "finish"
    first_loss: float = 7.0
    last_loss: float = 6.0
    step_seconds: float = 0.001


def settings_from(arguments):
    """Settings with `--name value` pairs laid over the defaults."""
    kinds = {item.name: type(item.default) for item in fields(Settings)}
    given = {name.removeprefix("--"): value for name, value in zip(arguments[::2], arguments[1::2], strict=True)}
    unknown = set(given) - set(kinds)
    if unknown:
        sys.exit(f"error: unknown setting {unknown}")
    return Settings(
        **{name: value == "true" if kinds[name] is bool else kinds[name](value) for name, value in given.items()}
    )


def main():
    """Print a falling loss, or fail in the way that was asked for."""
    settings = settings_from(sys.argv[1:])
    rank = int(os.environ.get("RANK", 0))
    if settings.do == "bad_input":
        print("error: num_iterations must be even", file=sys.stderr)
        sys.exit(2)
    if settings.do == "sleep":
        program = "import time; time.sleep(300)"
        subprocess.Popen([sys.executable, "-c", program, settings.log_file], start_new_session=True)
    log = open(settings.log_file, "w") if rank == 0 else None  # noqa: SIM115

    def say(line):
        if rank == 0:
            print(line, flush=True)
            print(line, file=log, flush=True)

    if log:
        log.write(Path(__file__).read_text() + "=" * 100 + "\nRunning Python 3\n" + "=" * 100 + "\n")
    steps, step_ms = settings.num_iterations, 1000 * settings.step_seconds
    for step in range(steps + 1):
        elapsed = f"{step * step_ms:.0f}ms step_avg:{step_ms:.2f}ms"
        if step % settings.val_loss_every == 0 or step == steps:
            loss = settings.first_loss + (settings.last_loss - settings.first_loss) * step / steps
            if settings.do == "diverge" and step == steps:
                loss = float("nan")
            if settings.do == "stop_early" and step == steps:
                return
            say(f"step:{step}/{steps} val_loss:{loss:.4f} train_time:{elapsed}")
        if settings.do == "crash" and step == 1 and rank == 1:
            raise ArithmeticError("the loss of rank 1 is not a number")
        if settings.do == "fallback" and step == 1:
            say("fallback step:1 fp8 -> bf16: a scale overflowed")
        if settings.do == "killed" and step == 1 and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.do in ("stall", "sleep", "crash", "killed") and step == 1:
            time.sleep(300)
        if step < steps:
            time.sleep(settings.step_seconds)
            say(f"step:{step + 1}/{steps} train_time:{elapsed}")
    say("peak memory allocated: 1 MiB reserved: 2 MiB")


main()
