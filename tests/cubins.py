"""Are the 8-bit kernels right as this machine's Triton compiles them? Compiled here for an H100, run on one elsewhere:

    python tests/cubins.py compile cubins/      # here, without a GPU
    python tests/cubins.py run cubins/          # there, whatever Triton it has; needs CuPy

Which threads hold what, and so whether a transposed tile comes out right, is the compiler's choice, and another one in
each version. Every record with kernels of its own is asked; a line says how many of its numbers are wrong.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/records")]

import compiling  # noqa: E402
import fp8_head  # noqa: E402
from scripts import definitions  # noqa: E402

TOKENS, CLASSES, DIM = 1024, 50304, 768


def with_kernels_of_their_own() -> list[Path]:
    """A record's folder for each text of kernels that hold numbers of 8 bits."""
    texts = {}
    for script in sorted((ROOT / "records").glob("*/train.py")):
        block = re.search(r"^if triton is not None:\n.*?^(?=\S)", script.read_text(encoding="utf-8"), re.M | re.S)
        if block and "float8" in block[0]:
            texts[block[0]] = script.parent
    return list(texts.values())


def calls(record, place: str):
    """The functions that make 8-bit numbers in both directions, with what they take: (name, function of a device)."""
    torch.manual_seed(0)
    x, weight = torch.randn(TOKENS, DIM).bfloat16(), torch.randn(CLASSES, DIM).mul(0.3)
    z, targets = (8 * torch.randn(TOKENS, CLASSES)).bfloat16(), torch.randint(0, 50257, (TOKENS,))
    sums = z[:, :4096].float().logsumexp(-1)
    inputs = [tensor.to(place) for tensor in (x, weight, weight.bfloat16(), z, targets, sums)]
    x, wide, narrow, z, targets, sums = inputs
    yield "activations", lambda: record.quantised(x, 27.7 / 448)
    yield "weights", lambda: record.quantised(narrow, 2.0**-9)
    yield "weights, fp32", lambda: record.quantised(wide, 2.0**-9)
    yield "logits' gradient", lambda: fp8_head.logit_gradient(record, z, targets, sums)


def compile_here(folder: Path) -> None:
    """Write the machine code of every launch, and what it needs to be launched again."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    driver.set_active(compiling.H100())
    run, launches = JITFunction.run, {}

    def keep(self, *arguments, grid, warmup, **options):
        kernel = run(self, *arguments, grid=grid, warmup=True, **options)
        names = [name for name, kind in kernel.src.signature.items() if kind != "constexpr"]
        path = folder / f"{len(list(folder.glob('*.cubin')))}.cubin"
        path.write_bytes(kernel.asm["cubin"])
        made = kernel.metadata
        launch = {"cubin": path.name, "name": made.name, "shared": made.shared, "warps": made.num_warps}
        launches[record.__file__].append(launch | {"arguments": names})

    JITFunction.run = keep
    torch.Tensor.is_cuda = property(lambda tensor: True)
    folder.mkdir(parents=True)
    for script in with_kernels_of_their_own():
        record = definitions(script)
        record.__file__ = script.name
        launches[script.name] = []
        for _, call in calls(record, "meta"):
            call()
    (folder / "launches.json").write_text(json.dumps(launches, indent=1))


def run_there(folder: Path) -> bool:
    """Launch them on this machine's GPU; whether all numbers are right."""
    import cupy
    from triton.runtime.jit import JITFunction

    launches, right, waiting = json.loads((folder / "launches.json").read_text()), True, []

    def replace(self, *arguments, grid, warmup, **options):
        launch = waiting.pop(0)
        code = cupy.RawModule(path=str(folder / launch["cubin"])).get_function(launch["name"])
        code.max_dynamic_shared_size_bytes = launch["shared"]
        given = dict(zip(self.arg_names, arguments)) | options
        values = [given[name] for name in launch["arguments"]]
        words = [
            np.uint64(value.data_ptr()) if isinstance(value, torch.Tensor) else np.int32(value) for value in values
        ]
        scratch = [np.uint64(0)] * 2
        torch.cuda.synchronize()
        code((*grid, 1, 1)[:3], (32 * launch["warps"], 1, 1), (*words, *scratch), shared_mem=launch["shared"])
        torch.cuda.synchronize()

    JITFunction.run = replace
    for name, made in launches.items():
        record = definitions(ROOT / "records" / name)
        waiting.extend(made)
        for (what, call), (_, plain) in zip(calls(record, "cuda"), calls(record, "cpu")):
            rows, columns = (tensor.cpu().view(torch.uint8) for tensor in call())
            expected = plain()[0].view(torch.uint8)
            wrong = [(result != expected).float().mean().item() for result in (rows, columns.T)]
            print(f"{name:48} {what:20} wrong: {wrong[0]:.2%} as it is, {wrong[1]:.2%} transposed", flush=True)
            right = right and max(wrong) < 1e-3  # exp differs in its last bit
    return right


if __name__ == "__main__":
    mode, place = sys.argv[1], Path(sys.argv[2])
    sys.exit(compile_here(place) if mode == "compile" else not run_there(place))
