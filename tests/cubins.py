"""Are the 8-bit kernels right as this machine's Triton compiles them? Compiled here for an H100, run on one elsewhere:

    python tests/cubins.py compile cubins/      # here, without a GPU
    python tests/cubins.py run cubins/          # there, whatever Triton it has; needs CuPy

Compiler and assembler differ from version to version, and either may be wrong (`machine_code.py` has an instance that
is seen without a GPU). Every record with kernels of its own is asked; a line says how many of its numbers are wrong.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/records")]

import compiling  # noqa: E402
import fp8_head  # noqa: E402
import smoke  # noqa: E402
from kernels import tensors_on_cuda  # noqa: E402
from scripts import definitions, texts_of  # noqa: E402

TOKENS, CLASSES, DIM = 1024, 4096, 768  # for Triton multiples of 16, as the records have them


def with_kernels_of_their_own() -> list[Path]:
    """The latest record's folder for each text of kernels that hold numbers of 8 bits."""
    scripts = sorted((ROOT / "records").glob("*/train.py"))
    texts = {texts_of(script.read_text(encoding="utf-8")): script.parent for script in scripts}
    return [folder for text, folder in texts.items() if "float8" in "".join(text)]


def calls(record, place: str):
    """The functions that make 8-bit numbers in both directions, with what they take: (name, function)."""
    torch.manual_seed(0)
    x, weight = torch.randn(TOKENS, DIM).bfloat16(), torch.randn(CLASSES, DIM).mul(0.3)
    z, targets = (8 * torch.randn(TOKENS, CLASSES)).bfloat16(), torch.randint(0, CLASSES, (TOKENS,))
    sums = z.float().logsumexp(-1)
    inputs = [tensor.to(place) for tensor in (x, weight, weight.bfloat16(), z, targets, sums)]
    x, wide, narrow, z, targets, sums = inputs
    yield "activations", lambda: record.quantised(x, 27.7 / 448)
    yield "weights", lambda: record.quantised(narrow, 2.0**-9)
    yield "weights, fp32", lambda: record.quantised(wide, 2.0**-9)
    yield "logits' gradient", lambda: fp8_head.logit_gradient(record, z, targets, sums)


def compile_here(folder: Path) -> None:
    """Write the machine code of every launch, and what it needs to be launched again."""
    launches = {}

    def keep(name: str, options: dict, kernel):
        code = folder / f"{len(list(folder.glob('*.cubin')))}.cubin"
        code.write_bytes(kernel.asm["cubin"])
        made = {"cubin": code.name, "name": name, "shared": kernel.metadata.shared, "warps": kernel.metadata.num_warps}
        made["arguments"] = [each for each, kind in kernel.src.signature.items() if kind != "constexpr"]
        launches[record].append(made)

    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as cache, tensors_on_cuda():
        compiling.begin(Path(cache), keep)
        for script in with_kernels_of_their_own():
            record = script.name
            launches[record] = []
            for _, call in calls(definitions(script), "meta"):
                call()
    (folder / "launches.json").write_text(json.dumps(launches, indent=1))


def word(value: torch.Tensor | int):
    """A kernel's argument, as the machine code takes it."""
    return np.uint64(value.data_ptr()) if isinstance(value, torch.Tensor) else np.int32(value)


def run_there(folder: Path, place: str = "cuda") -> bool:
    """Launch them on this machine's GPU, of which CuPy is asked; whether all numbers are right."""
    import cupy
    from triton.runtime.jit import JITFunction

    launches, right, waiting = json.loads((folder / "launches.json").read_text()), True, []

    def launch(self, *arguments, grid, warmup, **options):
        made = waiting.pop(0)
        code = cupy.RawModule(path=str(folder / made["cubin"])).get_function(made["name"])
        code.max_dynamic_shared_size_bytes = made["shared"]
        given = dict(zip(self.arg_names, arguments)) | options
        words = [word(given[name]) for name in made["arguments"]] + [np.uint64(0)] * 2  # scratch memory: none needs it
        code((*grid, 1, 1)[:3], (32 * made["warps"], 1, 1), tuple(words), shared_mem=made["shared"])

    smoke.poison_memory()  # what is not written shows
    JITFunction.run = launch
    for name, made in launches.items():
        record = definitions(ROOT / "records" / name)
        waiting.extend(made)
        plain = [call()[0].view(torch.uint8) for _, call in calls(record, "cpu")]
        with tensors_on_cuda():
            for (what, call), expected in zip(calls(record, place), plain):
                rows, columns = (tensor.to("cpu").view(torch.uint8) for tensor in call())
                wrong = [(result != expected).float().mean().item() for result in (rows, columns.T)]
                print(f"{name:48} {what:20} wrong: {wrong[0]:.2%} as it is, {wrong[1]:.2%} transposed", flush=True)
                right = right and max(wrong) < 1e-3  # exp differs in its last bit
    return right


if __name__ == "__main__":
    mode, folder = sys.argv[1], Path(sys.argv[2])
    sys.exit(compile_here(folder) if mode == "compile" else not run_there(folder))
