"""How long a test waits for another process before it thinks that it hangs: never a measure."""

PATIENCE = 900  # seconds; a stage of the tiny model takes ten on an idle machine
