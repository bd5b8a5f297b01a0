"""Side-by-side measurements of this project and a plain PyTorch reference; see ``benchmarks.step``."""
