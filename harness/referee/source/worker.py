"""The guarded process that parses a stranger's script: a source that kills or stalls the parser kills only this.

Started by `rules.read_source` with the modules as JSON on standard input; answers with facts as JSON.
"""

import ast
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
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(DEEPEST)
    threading.stack_size(256 << 20)  # room for the recursion of ast.dump over deep but honest code
    worker = threading.Thread(target=answer)
    worker.start()
    worker.join()


def answer() -> None:
    """Read the modules, write the facts."""
    try:
        facts = read(json.load(sys.stdin))
    except SyntaxError as error:
        facts = {"error": f"not Python: {error.msg} (line {error.lineno})"}
    except (RecursionError, MemoryError):
        facts = {"error": "nested too deeply to be read"}
    except ValueError as error:
        facts = {"error": f"cannot be parsed: {error}"}
    json.dump(facts, sys.stdout)


def read(modules: dict[str, str]) -> dict:
    """All facts of a script ("") and its helper modules, by name."""
    from harness.referee.source.compiler import compiler_facts
    from harness.referee.source.data import data_facts
    from harness.referee.source.names import Names

    names = Names({name: ast.parse(text) for name, text in modules.items()})
    return {"compiler": compiler_facts(names)} | data_facts(names)
