"""The names that matter when a script is read for compiler flags: what compiles, what configures, what hides.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

from harness.referee.source.names import CONFIG_MODULES

COMPILE = "torch.compile"
COMPILERS = (COMPILE, "torch._dynamo.optimize", "torch._inductor.compile", "torch._inductor.aot_compile")
COMPILE_KEYWORDS = {"mode", "options", "backend", "fullgraph", "dynamic", "disable"}
RUNS_TEXT = {
    *(f"builtins.{name}" for name in ("exec", "eval", "compile")),
    *(f"runpy.{name}" for name in ("run_path", "run_module")),
    *(f"os.{name}" for name in ("execv", "execve", "execvp", "execl", "execle", "fork", "posix_spawn")),
    "importlib.util.spec_from_file_location",
    "importlib.util.module_from_spec",
    "importlib.machinery.SourceFileLoader",
    "importlib.reload",
    "types.FunctionType",
    "types.CodeType",
    "marshal.loads",
    "os.system",
    "os.putenv",
}
GUARDED = {"torch", "torch._inductor", "torch._dynamo", COMPILE, "sys.modules", *CONFIG_MODULES}
GUARDED |= {f"{module}.__dict__" for module in GUARDED} | {"torch._inductor.config.triton"}
ATTRIBUTE_CALLS = {f"builtins.{name}" for name in ("getattr", "setattr", "delattr", "object.__setattr__")}
LOOKERS = {
    f"builtins.{name}" for name in ("getattr", "setattr", "hasattr", "vars", "isinstance", "print", "id", "repr")
}
LOOKERS |= {"functools.partial"}
READS_CONFIG = {"get_config_copy", "shallow_copy_dict", "codegen_config", "save_config", "get_hash", "to_dict"}
