"""The preflight: one function per check, which returns what it found or raises a `UserError`.

It loads the tokenizer, names and sizes of the weights, and all rows of the data; no weights.
"""

from collections.abc import Callable, Iterator, Mapping

from selm.check.data import first_rows, lengths, rows
from selm.check.machine import disk, gpu, hub, memory, output, packages
from selm.check.model import model, rankers, stop_ids, template, tokens
from selm.check.preflight import Preflight
from selm.check.training import batch, quick_training, training
from selm.errors import OutsideError, UserError
from selm.run.plan import Run

Check = Callable[[Preflight], str]

CHECKS: dict[str, Check] = {
    "packages": packages,
    "gpu": gpu,
    "output": output,
    "model": model,
    "template": template,
    "data": rows,
    "tokens": tokens,
    "stop ids": stop_ids,
    "lengths": lengths,
    "batch": batch,
    "training": training,
    "rankers": rankers,
    "hub": hub,
    "disk": disk,
    "memory": memory,
}

# `run.sh` runs these before the first stage. They take seconds, and leave out the estimates: they
# may be wrong, so no run is refused because of them.
QUICK: dict[str, Check] = {
    "packages": packages,
    "gpu": gpu,
    "output": output,
    "model": model,
    "template": template,
    "data": first_rows,
    "training": quick_training,
    "rankers": rankers,
}


def results(run: Run, checks: Mapping[str, Check] = CHECKS) -> Iterator[tuple[str, bool, str]]:
    """(name of the check, whether it passed, what it found), one check after another.

    If several checks meet the same fault, it is reported once.
    """
    preflight, told = Preflight(run), set()
    for name, check in checks.items():
        try:
            found, well = check(preflight), True
        except (UserError, OutsideError) as error:
            found, well = str(error), False
        if found in told:
            found = "not checked, see above"
        told.add(found)
        yield name, well, found
