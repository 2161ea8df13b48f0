"""A train script without a model: it speaks the dialect of the records, and misbehaves on demand.

`--do` one of: finish, crash (rank 1 raises), killed (rank 1 is, by a signal), bad_input (one line of error), stall,
fallback (a line of it), sleep (a stall with a child process), stop_early (exit 0 without the final validation),
memory (more than there is), descend (gradient descent in one dimension, which a learning rate of 1 or more blows up),
needs_bf16 (that, blown up by fp8 instead), nan (a loss that is none, and on it goes), refuse_nan (the records' answer
to one), norm (the gradient's norm leaps in the telemetry, the loss does not), cache (a kernel from the compile
cache, which loads for the driver alone that it was compiled for), clock (its own clock is set forward by an hour),
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
    learning_rate: float = 0.3
    final_learning_rate: float = 0.1
    row_tokens: int = 1024
    driver: str = "570"


@dataclass
class Descent:
    """Gradient descent on 3 + x^2, one step a reading: at a rate below 1 it falls, above it explodes."""

    rate: float
    x: float = 2.0
    step: int = 0

    def loss(self, step):
        """The loss, one step further on than at the last reading of another step."""
        while self.step < step:
            self.x -= self.rate * 2 * self.x
            self.step += 1
        return 3 + self.x**2


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


def load_kernel(path, driver):
    """Take the kernel at `path` as a driver does, or compile it."""
    if not path.exists():
        path.write_text(driver)
    if path.read_text() != driver:
        raise RuntimeError(f"{path}: device kernel image is invalid")


def wait_for(text, log):
    """Until rank 0 has written this."""
    while not (log.exists() and text in log.read_text()):
        time.sleep(0.01)


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
    rate = settings.learning_rate
    descent = Descent(100 * rate if settings.do == "needs_bf16" and settings.fp8 else rate)
    for step in range(steps + 1):
        leap = 3_600_000 if settings.do == "clock" and step > 5 else 0
        elapsed = f"{step * step_ms + leap:.0f}ms step_avg:{step_ms:.2f}ms"
        if step % settings.val_loss_every == 0 or step == steps:
            loss = settings.first_loss + (settings.last_loss - settings.first_loss) * step / steps
            if settings.do in ("descend", "needs_bf16"):
                loss = descent.loss(step)
            if (settings.do == "nan" and step >= 4) or (settings.do == "diverge" and step == steps):
                loss = float("nan")
            if settings.do == "stop_early" and step == steps:
                return
            say(f"step:{step}/{steps} val_loss:{loss:.4f} train_time:{elapsed}")
        if settings.do == "crash" and step == 1 and rank == 1:
            raise ArithmeticError("the loss of rank 1 is not a number")
        if settings.telemetry_every and step % settings.telemetry_every == 0:
            norm = 500.0 if settings.do == "norm" and step == 8 else 1 + 0.01 * step
            say(f"telemetry step:{step} grad_norm:{norm:.4e} weight_norm:2.0e+02 activation_rms:[1.0,1.1]")
        if settings.do == "refuse_nan" and step == 3:
            print("error: stopped at step 3: training loss nan, the weights are finite", file=sys.stderr, flush=True)
            os._exit(1)
        if settings.do == "cache" and step == 1:
            load_kernel(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"], "kernel"), settings.driver)
        if settings.do == "memory" and step == 1:
            bytearray(1 << 60)
        if settings.do == "fallback" and step == 1:
            say("fallback step:1 fp8 -> bf16: a scale overflowed")
        if settings.do == "killed" and step == 1 and rank == 1:
            wait_for(f"step:1/{steps} ", Path(settings.log_file))  # as a collective would
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.do in ("stall", "sleep", "crash", "killed") and step == 1:
            time.sleep(300)
        if step < steps:
            time.sleep(settings.step_seconds)
            say(f"step:{step + 1}/{steps} train_time:{elapsed}")
    say("peak memory allocated: 1 MiB reserved: 2 MiB")


main()
