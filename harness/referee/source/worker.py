"""The guarded process that parses strangers' scripts: a source that kills or stalls the parser kills only this.

Started by `reader`. Each message, in and out, is 8 bytes of length and that much JSON: the modules of a script by name
come in, its facts go out, until the input ends. A list of one text asks for that script's data-loading functions alone.
"""

import ast
import gc
import json
import resource
import sys
import threading
import warnings

MEMORY = 3 << 30
SECONDS = 20
DEEPEST = 20_000


def main() -> None:
    """Limit this process, then answer. Anything that goes wrong is an answer too: {"error": one line}."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(DEEPEST)
    gc.disable()  # trees hold no circles, and the collector would walk each of them several times
    threading.stack_size(256 << 20)  # room for the recursion of the parser's helpers over deep but honest code
    worker = threading.Thread(target=serve, args=(sys.stdin.buffer, sys.stdout.buffer))
    worker.start()
    worker.join()


def serve(requests, answers) -> None:
    """Answer messages until there are no more."""
    while head := requests.read(8):
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + SECONDS, resource.RLIM_INFINITY))
        said = json.dumps(answer(requests.read(int.from_bytes(head, "big")))).encode()
        answers.write(len(said).to_bytes(8, "big") + said)
        answers.flush()


def answer(request: bytes) -> dict:
    """The facts about the modules in a message."""
    try:
        asked = json.loads(request)
        return read_loader(*asked) if isinstance(asked, list) else read(asked)
    except SyntaxError as error:
        return {"error": f"not Python: {error.msg} (line {error.lineno})"}
    except (RecursionError, MemoryError):
        return {"error": "nested too deeply to be read"}
    except ValueError as error:
        return {"error": f"cannot be parsed: {error}"}
    except Exception as error:  # a fault of the reader's own: what it could not read is as good as hidden
        return {"error": f"cannot be read: {type(error).__name__}"}


def read_loader(script: str) -> dict:
    """The `loader` of the facts alone, for a fraction of the time that all of them take."""
    from harness.referee.source.data import loader_of

    return {"loader": loader_of({"": ast.parse(script)})}


def read(modules: dict[str, str]) -> dict:
    """All facts of a script ("") and its helper modules, by name."""
    from harness.referee.source.clock import clock_facts
    from harness.referee.source.compiler import compiler_facts
    from harness.referee.source.data import data_facts
    from harness.referee.source.fingerprint import fingerprint
    from harness.referee.source.habits import habit_facts
    from harness.referee.source.loss import loss_facts
    from harness.referee.source.names import Names
    from harness.referee.source.validation import validation_facts

    trees = {name: ast.parse(text) for name, text in modules.items()}
    names = Names(trees)
    facts = {"code": fingerprint(*trees.values()), "compiler": compiler_facts(names), "clock": clock_facts(names)}
    return facts | data_facts(names) | validation_facts(names) | loss_facts(names) | habit_facts(names)
