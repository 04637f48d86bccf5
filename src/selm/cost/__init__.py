"""Estimates of every stage's tokens, memory, disk and time. Imports no torch.

    stage_cost(recipe, "checkpoint", 2).memory.total      # of `estimate.py`: bytes on each GPU

They are computed from the model's shape, the recipe, its section `estimate`, and `devices.yaml`.
Each module's docstring gives the equations of its stage. Decimal units: 1 GB is 1e9 bytes.
"""
