"""What this machine can replay, and why not more; kernels and links measured."""
