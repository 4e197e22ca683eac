"""What this machine computes with: kernels, processes, cores and memory, and where the time goes."""
