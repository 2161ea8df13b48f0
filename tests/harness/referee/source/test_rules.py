"""Compiler flags in every spelling, and sources that would like to break their reader. Nothing here is ever run."""

import time

import pytest

from harness.referee.source.rules import judge_flags, read_source
from timing.rules import EDITIONS, today

PRINTS = "print('val_loss')\n"


def judge(source, helpers=()):
    """(banned, undecided, allowed) names under today's rules."""
    facts = read_source(PRINTS + source, helpers)
    assert "error" not in facts, facts
    banned, undecided, allowed = judge_flags(facts, today().compiler)
    return [text for text, _, _ in banned], [text for text, _, _ in undecided], allowed


BANNED = {
    "attribute": "import torch\ntorch._inductor.config.coordinate_descent_tuning = True",
    "attribute of a part": "import torch\ntorch._inductor.config.triton.cudagraphs = True",
    "augmented": "import torch\ntorch._inductor.config.max_fusion_size += 10",
    "from-import": "from torch._inductor import config\nconfig.max_autotune = True",
    "import as": "import torch._inductor.config as knobs\nknobs.max_autotune = True",
    "alias of a part": "import torch\ninner = torch._inductor\ninner.config.max_autotune = True",
    "aliases of aliases": "import torch\na = torch\nb = a._inductor\nc = b.config\nc.max_autotune = True",
    "unpacked alias": "import torch\na, b = torch._dynamo, torch._inductor\nb.config.max_autotune = True",
    "walrus": "import torch\n(c := torch._inductor.config).max_autotune = True",
    "inside a function": "def f():\n    import torch._inductor.config as c\n    c.max_autotune = True",
    "global": "import torch\ndef f():\n    global c\n    c = torch._inductor.config\nf()\nc.max_autotune = True",
    "through another module": "import torch._inductor.utils as u\nu.config.max_autotune = True",
    "setattr": "import torch\nsetattr(torch._inductor.config, 'max_autotune', True)",
    "dunder setattr": "import torch\ntorch._inductor.config.__setattr__('max_autotune', True)",
    "getattr chain": "import torch\ngetattr(getattr(torch, '_inductor'), 'config').max_autotune = True",
    "vars": "import torch\nvars(torch._inductor.config)['max_autotune'] = True",
    "dict": "import torch\ntorch._inductor.config.__dict__['max_autotune'] = True",
    "a module's own compile": "model.compile(mode='max-autotune')",
    "the class's compile": "import torch\ntorch.nn.Module.compile(model, mode='max-autotune')",
    "dict update": "import torch\ntorch._inductor.config.__dict__.update(max_autotune=True)",
    "sys.modules": "import sys, torch\nsys.modules['torch._inductor.config'].max_autotune = True",
    "import_module": "import importlib\nimportlib.import_module('torch._inductor.config').max_autotune = True",
    "dunder import": "__import__('torch')._inductor.config.max_autotune = True",
    "globals": "import torch\nglobals()['torch']._inductor.config.max_autotune = True",
    "patch keyword": "import torch\nwith torch._inductor.config.patch(max_autotune=True):\n    pass",
    "patch dictionary": "import torch\n@torch._inductor.config.patch({'max_autotune': True})\ndef f(): pass",
    "patch name and value": "import torch\ntorch._inductor.config.patch('max_autotune', True).__enter__()",
    "patch unpacked": "import torch\nwith torch._inductor.config.patch(**{'max_autotune': True}):\n    pass",
    "patch aliased": "from torch._inductor.config import patch\nwith patch(max_autotune=True):\n    pass",
    "dynamo": "import torch._dynamo as d\nd.config.suppress_errors = True",
    "stance": "import torch\ntorch.compiler.set_stance(skip_guard_eval_unsafe=True)",
    "environment item": "import os\nos.environ['TORCHINDUCTOR_MAX_AUTOTUNE'] = '1'",
    "environment alias": "from os import environ as e\ne['TORCHINDUCTOR_COORDINATE_DESCENT_TUNING'] = '1'",
    "environment setdefault": "import os\nos.environ.setdefault('TORCHINDUCTOR_MAX_AUTOTUNE', '1')",
    "environment update": "import os\nos.environ.update({'TORCHINDUCTOR_MAX_AUTOTUNE': str(1)})",
    "environment or": "import os\nos.environ |= {'TORCHINDUCTOR_MAX_AUTOTUNE': '1'}",
    "mode": "import torch\nf = torch.compile(g, mode='max-autotune')",
    "mode by a name": "import torch\nMODE = 'reduce-overhead'\nf = torch.compile(g, mode=MODE)",
    "options": "import torch\nf = torch.compile(g, options={'max_autotune': True})",
    "backend": "import torch\nf = torch.compile(g, backend='cudagraphs')",
    "decorator": "import torch\n@torch.compile(mode='max-autotune', fullgraph=True)\ndef f(): pass",
    "from-import of compile": "from torch import compile as fast\n@fast(mode='max-autotune')\ndef f(): pass",
    "partial": "import torch, functools\nfast = functools.partial(torch.compile, mode='max-autotune')\nfast(g)",
    "call of a partial": "import torch\nfrom functools import partial as p\nfast = p(torch.compile)\nfast(g, mode='x')",
    "conditional alias": "import torch\nfast = torch.compile if cuda else (lambda f: f)\nfast(g, mode='max-autotune')",
    "unpacked arguments": "import torch\nK = dict(mode='max-autotune')\ntorch.compile(g, **K)",
    "method of a module": "model.compile(mode='reduce-overhead')",
}


@pytest.mark.parametrize("source", BANNED.values(), ids=BANNED.keys())
def test_banned_in_every_spelling(source):
    banned, _, _ = judge(source)
    assert banned


UNDECIDED = {
    "exec": "exec(text)",
    "eval": "eval('torch._inductor.config')",
    "setattr of a computed name": "import torch\nsetattr(torch._inductor.config, name, True)",
    "getattr of a computed name": "import torch\ngetattr(torch, '_ind' + 'uctor').config.max_autotune = True",
    "handed to a function": "import torch\ndef f(c): c.max_autotune = True\nf(torch._inductor.config)",
    "in a list": "import torch\nfor c in [torch._inductor.config]: c.max_autotune = True",
    "in a class": "import torch\nclass A: c = torch._inductor.config\nA.c.max_autotune = True",
    "in an attribute": "import torch\nx.c = torch._inductor.config\nx.c.max_autotune = True",
    "returned": "import torch\ndef f(): return torch._inductor.config\nf().max_autotune = True",
    "arguments of unknown names": "import torch\ndef fast(f, **rest): return torch.compile(f, **rest)",
    "mode of an unknown value": "import torch\ntorch.compile(g, mode=settings.mode)",
    "compile replaced": "import torch\ntorch.compile = other",
    "star import": "from torch import *\ncompile(g, mode='max-autotune')",
    "computed environment variable": "import os\nos.environ[name] = '1'",
    "another process": "import subprocess\nsubprocess.run(['python', 'train.py'], env=variables)",
    "bytes of the environment": "import os\nos.environb[b'TORCHINDUCTOR_MAX_AUTOTUNE'] = b'1'",
    "the environment's inside": "import os\nos.environ._data[b'TORCHINDUCTOR_MAX_AUTOTUNE'] = b'1'",
    "another program": "import os, sys\nos.execvpe(sys.executable, sys.argv, variables)",
    "a spawned program": "import os\nos.spawnve(os.P_WAIT, path, words, variables)",
    "text to be timed": "import timeit\ntimeit.timeit('c.max_autotune = True', 'import torch._inductor.config as c')",
    "text to be profiled": "import cProfile\ncProfile.run(text)",
    "hints that run": "import typing\ntyping.get_type_hints(f)",
    "putenv": "import os\nos.putenv('TORCHINDUCTOR_MAX_AUTOTUNE', '1')",
    "computed import": "import importlib\nimportlib.import_module(name).max_autotune = True",
    "module that the log lacks": "from my_kernels import fast",
    "mock": "from unittest import mock\nmock.patch('torch._inductor.config.max_autotune', True).start()",
    "compiled text": "import marshal\nmarshal.loads(data)",
    "attribute getter": "import torch, operator\noperator.attrgetter('_inductor.config')(torch).max_autotune = True",
    "loaded configuration": "import torch\ntorch._inductor.config.load_config(data)",
}


@pytest.mark.parametrize("source", UNDECIDED.values(), ids=UNDECIDED.keys())
def test_what_cannot_be_read_is_undecided(source):
    banned, undecided, _ = judge(source)
    assert undecided and not banned


HONEST = {
    "comment": "import torch\n# torch._inductor.config.max_autotune = True",
    "string": "text = '''torch._inductor.config.max_autotune = True'''",
    "read": "import torch\nprint(torch._inductor.config.max_autotune)",
    "default value": "import torch\ntorch._inductor.config.coordinate_descent_tuning = False",
    "allowed arguments": "import torch\n@torch.compile(dynamic=False, fullgraph=True)\ndef f(): pass",
    "plain decorator": "import torch\n@torch.compile\ndef f(): pass",
    "default mode": "import torch\ntorch.compile(g, mode='default', options=None)",
    "recompile limit": "import torch\ntorch._dynamo.config.recompile_limit = 64",
    "cache size limit": "import torch._dynamo as d\nd.config.cache_size_limit = 64",
    "shadowed name": "from torch._inductor import config\ndef f(config):\n    config.max_autotune = True",
    "config of the model": "config = GPTConfig()\nconfig.max_autotune = True",
    "other compile": "import re\nre.compile('x', flags=re.M)",
    "model.eval": "model.eval()",
    "asking for the GPUs": "import subprocess\nsubprocess.run(['nvidia-smi'], capture_output=True)",
    "other environment": "import os\nos.environ['PYTORCH_CUDA_ALLOC_CONF'] = 'expandable_segments:True'",
    "cache folder": "import os\nos.environ['TORCHINDUCTOR_CACHE_DIR'] = '/tmp/cache'",
    "settings by setattr": "for key, value in given.items():\n    setattr(settings, key, value)",
    "conditional compile": "import torch\nfast = torch.compile(f, dynamic=False) if torch.cuda.is_available() else f",
    "a regular expression": "import re\nre.compile('x', flags=re.M)",
    "the default timer": "import timeit\nstart = timeit.default_timer()",
    "backend switches": "import torch\ntorch.backends.cuda.matmul.allow_tf32 = True",
}


@pytest.mark.parametrize("source", HONEST.values(), ids=HONEST.keys())
def test_honest_neighbours_pass(source):
    banned, undecided, _ = judge(source)
    assert not banned and not undecided


def test_flag_in_a_helper_module_and_through_one():
    helpers = [("kernels_of_mine.py", "import torch\nknobs = torch._inductor.config\n")]
    banned, _, _ = judge("from kernels_of_mine import knobs\nknobs.max_autotune = True", helpers)
    assert banned == ["torch._inductor.config.max_autotune=True"]
    banned, _, _ = judge("import kernels_of_mine as k\nk.knobs.max_autotune = True", helpers)
    assert banned


@pytest.mark.parametrize("names", [[".py"], ["x/.py"], ["a/kernels.py", "b/kernels.py"], ["k.py", "k.py"]])
def test_helper_modules_that_hide_another_are_not_read(names):
    """One without a name would stand in the script's place, the second of two in the first's."""
    facts = read_source(PRINTS, [(name, "x = 1\n") for name in names])
    assert list(facts) == ["error"] and facts["error"].startswith("two modules of it are called")


def test_everything_was_allowed_before_february_2025():
    facts = read_source(PRINTS + BANNED["attribute"])
    assert EDITIONS[1].compiler.settings is None
    assert facts["compiler"][0]["line"] == 3


HOSTILE = {
    "parentheses": "(" * 100_000 + ")" * 100_000,
    "sums": "x = " + "1 + " * 200_000 + "1",
    "attributes": "x = " + "a." * 200_000 + "b",
    "calls": "f" + "()" * 100_000,
    "negations": "x = " + "-" * 200_000 + "1",
    "lambdas": "x = " + "lambda: " * 50_000 + "1",
    "elif": "if a: pass\n" + "elif a: pass\n" * 20_000,
    "indentation": "".join(" " * i + "if 1:\n" for i in range(3_000)) + " " * 3_000 + "pass",
    "huge number": "x = " + "9" * 1_000_000,
    "null byte": "a\0b",
    "lone surrogate": "x = '\ud800'",
    "no Python": "def f(:",
    "size": "x = 1\n" * 2_000_000,
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_source_ends_in_one_line(source):
    began = time.monotonic()
    facts = read_source(PRINTS + source)
    assert "\n" not in facts["error"]
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("count", [20_000])
def test_long_but_honest_sources_are_read(count):
    facts = read_source(PRINTS + "import torch\n" + "x = torch\n" * count + "x._inductor.config.max_autotune = True")
    assert len(facts["compiler"]) == 1


def test_powers_are_not_computed():
    assert read_source(PRINTS + "val_tokens = 9**9**9**9")["val_tokens"][0][0] is None


def test_nothing_is_executed(tmp_path):
    mark = tmp_path / "executed"
    read_source(PRINTS + f"open({str(mark)!r}, 'w')", [("json.py", f"open({str(mark)!r}, 'w')")])
    assert not mark.exists()


def test_val_tokens_in_several_spellings():
    source = "class S:\n    val_tokens: int = 10_485_760\nargs.val_tokens = 20 * 524288\nf(val_tokens=10 << 20)"
    values = [value for value, _, _ in read_source(PRINTS + source)["val_tokens"]]
    assert values == [10_485_760, 20 * 524_288, 10 << 20]
    assert set(values) == {10_485_760}


LOADER = "def batches(path):\n    yield np.memmap(path)\n"


@pytest.mark.parametrize(
    ("source", "where"),
    [
        (
            "files = 'x/fineweb_val_*.bin'\n@torch.no_grad()\ndef run():\n    for b in batches(files): model(b)",
            "evaluation",
        ),
        ("files = 'x/fineweb_val_*.bin'\ndef validate():\n    return [model(b) for b in batches(files)]", "evaluation"),
        ("s = batches('x/fineweb_val_*.bin')\nfor i in range(9):\n    model(next(s)).backward()", "training"),
        ("def validate():\n    for b in batches('x/fineweb_val_*.bin'):\n        model(b).backward()", "training"),
        ("peek = next(batches('x/fineweb_val_0.bin'))", "elsewhere"),
    ],
)
def test_where_validation_is_read(source, where):
    reads = read_source(PRINTS + LOADER + source)["validation"]
    assert {place for place, _ in reads} == {where}


def test_loader_is_compared_without_what_does_not_run():
    plain = read_source(PRINTS + LOADER)["loader"]
    dressed = read_source(
        PRINTS + "def batches(path: str) -> object:\n    '''Doc.'''\n    # why\n    yield np.memmap(path)"
    )
    other = read_source(PRINTS + LOADER.replace("np.memmap(path)", "np.memmap(path)[1:]"))
    assert plain == dressed["loader"] != other["loader"]
