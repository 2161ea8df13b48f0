"""Numbers to pictures and pages: takes data frames and dataclasses, knows nothing of torchrun."""
