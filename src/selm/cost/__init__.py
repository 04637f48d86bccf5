"""What a run takes: tokens, memory, disk and time of every stage, estimated. Imports no torch.

    stage_cost(recipe, "checkpoint", 2).memory.total      # of `estimate.py`: bytes on each GPU

Arithmetic on the model's shape, the recipe, its section `estimate`, and the table `devices.yaml`.
Each module's docstring gives the equations of its stage. Decimal units: 1 GB is 1e9 bytes.
"""
