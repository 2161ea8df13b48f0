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
    "os.fork",
    "importlib.util.spec_from_file_location",
    "importlib.util.module_from_spec",
    "importlib.machinery.SourceFileLoader",
    "importlib.reload",
    "types.FunctionType",
    "types.CodeType",
    "marshal.loads",
    "os.system",
    "sys._getframe",
    "torch.utils.cpp_extension.load",
    "torch.utils.cpp_extension.load_inline",
    "sys.settrace",
    "sys.setprofile",
    "pickle.loads",
    "operator.attrgetter",
    "operator.methodcaller",
    "os.putenv",
    "typing.get_type_hints",
}
RUNS_PREFIXES = ("os.exec", "os.spawn", "os.posix_spawn")
GUARDED = {"torch", "torch._inductor", "torch._dynamo", COMPILE, "sys.modules", *CONFIG_MODULES}
GUARDED |= {f"{module}.__dict__" for module in GUARDED} | {"torch._inductor.config.triton"}
HIDING_ATTRIBUTES = {
    *("__globals__", "__builtins__", "__code__", "__closure__", "__subclasses__", "__bases__", "__mro__", "__base__"),
    *("__getattribute__", "__loader__", "__spec__", "__self__", "__wrapped__", "__import__", "__reduce__"),
    *("f_globals", "f_locals", "f_builtins", "f_back", "tb_frame", "gi_frame", "cr_frame", "ag_frame"),
}
"""Ways from one object to another that no name shows."""
HIDING_MODULES = {"ctypes", "gc", "inspect", "marshal", "code", "codeop", "imp", "cffi"}
HIDING_MODULES |= {"timeit", "cProfile", "profile", "pdb", "bdb", "trace"}  # they run text
HARMLESS_CALLS = {f"gc.{name}" for name in ("collect", "disable", "enable", "freeze", "isenabled")}
HARMLESS_CALLS |= {f"inspect.{name}" for name in ("getsource", "signature", "getfile")}
HARMLESS_CALLS |= {"timeit.default_timer"}
ATTRIBUTE_CALLS = {f"builtins.{name}" for name in ("getattr", "setattr", "delattr", "object.__setattr__")}
LOOKERS = {
    f"builtins.{name}" for name in ("getattr", "setattr", "hasattr", "vars", "isinstance", "print", "id", "repr")
}
LOOKERS |= {"functools.partial"}
READS_CONFIG = {"get_config_copy", "shallow_copy_dict", "codegen_config", "save_config", "get_hash", "to_dict"}
