"""Log text to numbers: pure functions without torch, network, subprocess or printing."""
