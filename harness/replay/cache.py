"""Where compiled kernels are kept from one run to the next: a folder for every set of versions, so that none is stale.

PyTorch's and Triton's own caches are shared by all that runs under one user's name, and an entry is found again by a
key that does not hold everything: a new driver, or another C compiler, meets kernels made for the old one.
"""

import hashlib
import json
import os
from pathlib import Path

from harness.machine import Machine


def compile_cache(machine: Machine) -> dict[str, str]:
    """The variables that put both caches into this machine's folder; {} where nothing is compiled, or none can be made.

    What the user set stays.
    """
    if not machine.gpus:
        return {}
    key = hashlib.sha256(json.dumps([machine.versions(), machine.driver, machine.gpus[0].name]).encode()).hexdigest()[
        :16
    ]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "speedrun-archive", "compiled", key)
    places = {"TORCHINDUCTOR_CACHE_DIR": folder / "inductor", "TRITON_CACHE_DIR": folder / "triton"}
    try:
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return {}
    return {name: os.environ.get(name, str(place)) for name, place in places.items()}


def suspect(trouble: str, env: dict[str, str]) -> str:
    """The compile cache that a traceback names, "" if it names none: it may be damaged."""
    named = (env[name] for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR") if env.get(name))
    return next((folder for folder in named if folder in trouble), "")
