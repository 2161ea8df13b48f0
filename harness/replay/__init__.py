"""One record on this machine: label and plan it, fetch its tokens, launch torchrun, watch, stop, keep, compare."""
