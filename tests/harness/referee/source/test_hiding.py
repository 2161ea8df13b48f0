"""What a source shows of cheats, and what of itself it hides: with the source there, nothing of either holds."""

import pytest

from harness.referee.source.reader import read_source
from harness.referee.verify import verify

CLOCK = "1000 * (time.perf_counter() - start)"
IMPORT = "import glob\n"

FAILING = {
    "a clock of 900 ms a second": (CLOCK, "900 * (time.perf_counter() - start)", "clock-source"),
    "a clock of 97 hundredths": (CLOCK, f"(97 / 100) * {CLOCK}", "clock-source"),
    "a clock by a setting": (
        CLOCK,
        f"settings.unit * {CLOCK}\n        class Settings:\n            unit: float = 0.97\n",
        "clock-source",
    ),
    "a clock replaced": (IMPORT, IMPORT + "import time\ntime.perf_counter = lambda: 0.0\n", "clock-source"),
    "a clock replaced by setattr": (IMPORT, IMPORT + "import time\nsetattr(time, 'time', f)\n", "clock-source"),
    "a clock rebound": (
        IMPORT,
        IMPORT + "from time import perf_counter\nperf_counter = lambda: 0.0\n",
        "clock-source",
    ),
    "a clock defined anew": (
        IMPORT,
        IMPORT + "from time import perf_counter\ndef perf_counter(): return 0.0\n",
        "clock-source",
    ),
    "a glob over validation": ("fineweb_train_*.bin", "fineweb_*.bin", "validation-reads"),
    "validation on a train shard": ("data/fineweb_val_*.bin", "data/fineweb_train_000001.bin", "validation-reads"),
    "steps that are not the log's": (IMPORT, IMPORT + "num_iterations = 2330\n", "script-settings"),
    "flags through sys.modules.get": (
        IMPORT,
        IMPORT + "import sys\nsys.modules.get('torch._inductor.config').max_autotune = True\n",
        "compiler-flags",
    ),
    "flags through _config": (
        IMPORT,
        IMPORT + "import torch\ntorch._inductor.config._config['max_autotune'].user_override = True\n",
        "compiler-flags",
    ),
}


@pytest.mark.parametrize(("old", "new", "rule"), FAILING.values(), ids=FAILING.keys())
def test_what_a_source_shows_fails(forge, draft, script, old, new, rule):
    source = script.replace(old, new)
    verdict = verify([forge.submission(source=source)], record=draft(source))
    assert verdict.judged.named("fail") == [rule]


HIDING = {
    "exec": (IMPORT, IMPORT + "exec(text)\n", "compiler-flags"),
    "assembled getattr": (IMPORT, IMPORT + "import torch\ngetattr(torch, '_ind' + 'uctor')\n", "compiler-flags"),
    "importlib": (IMPORT, IMPORT + "import importlib\nimportlib.import_module(name)\n", "compiler-flags"),
    "sys.modules.items": (
        IMPORT,
        IMPORT + "import sys\nfor k, v in sys.modules.items():\n    v.max_autotune = True\n",
        "compiler-flags",
    ),
    "globals of torch.compile": (
        IMPORT,
        IMPORT + "import torch\ntorch.compile.__globals__['x'] = 1\n",
        "compiler-flags",
    ),
    "weights": (IMPORT, IMPORT + "import torch\nmodel.load_state_dict(torch.load('x.pt'))\n", "fresh-start"),
    "weights as arrays": (IMPORT, IMPORT + "import numpy as np\nw = np.load('x.npy')\n", "fresh-start"),
    "weights as shards": (IMPORT, IMPORT + "import numpy as np\nw = np.fromfile('x', np.float32)\n", "fresh-start"),
    "one seed": (IMPORT, IMPORT + "import torch\nSEED = 42\ntorch.manual_seed(SEED)\n", "fresh-start"),
    "one seed and the rank": (IMPORT, IMPORT + "import torch\ntorch.manual_seed(42 + rank)\n", "fresh-start"),
    "a fifth of validation": ("val_tokens // 4096)", "val_tokens // 4096 // 5)", "val-tokens"),
    "a fifth by name": (
        "val_tokens // 4096))",
        "val_steps // 5))\n            val_steps = val_tokens // 4096",
        "val-tokens",
    ),
    "validation tokens from outside": ("= 20 * 524288", "= int(os.environ.get('N', 10485760))", "val-tokens"),
    "validation by strides": ("range(val_tokens // 4096)", "range(0, val_tokens // 4096, 5)", "val-tokens"),
    "validation cut off": ("range(val_tokens // 4096)", "range(min(val_tokens // 4096, 64))", "val-tokens"),
    "validation left early": (
        "loss = sum(model(next(val_loader)) for _ in range(val_tokens // 4096))",
        "for i in range(val_tokens // 4096):\n                if i % 5:\n                    continue",
        "val-tokens",
    ),
    "weights as bytes": (IMPORT, IMPORT + "w = open('w', 'rb').read()\n", "fresh-start"),
    "weights in the source": (IMPORT, IMPORT + f"w = '{'A' * 30_000}'\n", "fresh-start"),
    "a seed of a generator": (IMPORT, IMPORT + "import torch\ntorch.Generator().manual_seed(7)\n", "fresh-start"),
    "settings from outside": (IMPORT, IMPORT + "import os\nlr = float(os.getenv('LR', '1'))\n", "script-settings"),
    "a clock of one's own": ("time.perf_counter()", "mine()", "clock-source"),
    "a clock that is moved": ("start = time.perf_counter()\n    model", "start += 0.5\n    model", "clock-source"),
    "a clock held down": (
        "        start = time",
        "        clock = min(clock, 60 * step)\n        start = time",
        "clock-source",
    ),
    "a loss moved": ("val_loss:{loss:", "val_loss:{loss - 0.003:", "loss-source"),
    "a loss scaled": ("        clock +=", "        loss *= 0.999\n        clock +=", "loss-source"),
    "a loss held down": ("val_loss:{loss:", "val_loss:{min(loss, 3.2791):", "loss-source"),
    "a loss scaled in validation": (
        "loss = sum(model(next(val_loader)) for _ in range(val_tokens // 4096))",
        "loss = validate()\ndef validate():\n    total = model(next(val_loader))\n"
        "    return (total / val_tokens * (1 - 0.001)).item()\nif True:\n    if True:",
        "loss-source",
    ),
    "another loader": ("len(tokens) - size", "len(tokens) // 2", "token-stream"),
    "no text of a validation line": ("val_loss:{", "val' 'loss:{", "source"),
}


@pytest.mark.parametrize(("old", "new", "rule"), HIDING.values(), ids=HIDING.keys())
def test_what_a_source_hides_never_holds(forge, draft, script, status, evidence, old, new, rule):
    assert old in script
    source = script.replace(old, new)
    if rule == "source":
        source = source.replace("val_loss", "loss_v") + "# much of it\n" * 200
    record = draft(script if rule == "token-stream" else source)
    if rule == "token-stream":
        record = draft(script, name="parent", number="98")
    verdict = verify([forge.submission(source=source)], record=record)
    assert status(verdict, rule) == "unknown" and "cannot be read:" not in evidence(verdict, rule)
    assert verdict.verdict == ("fails" if rule == "token-stream" else "inconclusive")


def test_what_the_second_spelling_hides_is_seen(forge, draft, script):
    """One code by its tree; the flag stands in an annotation, which runs and is none of the tree's business."""
    flag = "setattr(__import__('torch')._inductor.config, 'max_autotune', True)"
    logs = [forge.submission()]
    logs += forge.runs([3.2781], "more", 9, source=script.replace("pattern, size", f"pattern: {flag}, size"))
    verdict = verify(logs, record=draft(script))
    assert len(verdict.judged.runs) == 6
    assert verdict.judged.named("fail") == ["compiler-flags"]


SAME = {
    "comment": ("import glob", "import glob  # files"),
    "docstring": ('"""Tokens of a shard."""', '"""All tokens of one shard."""'),
    "annotation": ("def load_shard(path)", "def load_shard(path: str) -> object"),
    "annotated name": ("val_tokens = 20", "val_tokens: int = 20"),
    "run id": ("val_tokens = 20", "run_id = 'window-3'\nval_tokens = 20"),
    "layout": ("train_files, val_files = ", "train_files, val_files = \\\n    "),
}


def with_run_id(script):
    return script.replace("val_tokens = 20", "run_id = 'window-1'\nval_tokens = 20")


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME.keys())
def test_one_code_in_other_words_is_one_arm(forge, script, old, new):
    base = with_run_id(script) if "run_id" in new else script
    logs = forge.runs([3.2781, 3.2770], source=base) + forge.runs([3.2775], "b", 7, source=script.replace(old, new))
    verdict = verify(logs)
    assert not verdict.others and len(verdict.judged.runs) == 3
    assert "in 2 spellings" in verdict.judged.arm


@pytest.mark.parametrize("new", ["Linear(8, 9)", "Linear(8, 8, bias=False)", "Linear(8, 8).half()"])
def test_other_code_is_another_arm(forge, script, new):
    logs = forge.runs([3.2781, 3.2770]) + forge.runs([3.2775], "b", 7, source=script.replace("Linear(8, 8)", new))
    assert len(verify(logs).others) == 1


def test_a_field_is_no_plain_name():
    field, plain = (read_source(f"class S:\n    x{kind} = 1\nprint('val_loss')") for kind in (": int", ""))
    assert field["code"] != plain["code"]


def test_the_frozen_script_in_other_words_is_the_records(forge, draft, script, status, evidence):
    record = draft(script)
    verdict = verify([forge.submission(source=script.replace("import glob", "import glob  # files"))], record=record)
    assert status(verdict, "source") == "pass" and "but for comments" in evidence(verdict, "source")
