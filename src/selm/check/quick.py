"""The part of the preflight that takes seconds: `run.sh` runs it before the first stage.

It leaves out the estimates: they may be wrong, so no run is refused because of them.
"""

from selm.check.machine import packages
from selm.check.model import model
from selm.check.output import output
from selm.check.rankers import rankers
from selm.check.rows import first_rows
from selm.check.tokens import template
from selm.check.training import quick_training

QUICK = {
    "packages": packages,
    "output": output,
    "model": model,
    "template": template,
    "data": first_rows,
    "training": quick_training,
    "rankers": rankers,
}
