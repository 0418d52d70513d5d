"""Benchmarks: a module each, with ``run()`` that yields measurements; ``tools/benchmark.py NAME`` runs it."""
