"""Checks against golden vectors: inputs, weights and outputs of the authors' own code.

One module per folder of cases, with a function ``outputs(case)`` that computes what the case stores.
"""
