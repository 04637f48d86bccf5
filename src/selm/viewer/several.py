"""One page of several runs: their policies side by side, and everything else one after another."""

from collections.abc import Sequence
from typing import Any

from selm.viewer.content import Content


def together(
    contents: Sequence[Content],
    title: str,
    lines: Sequence[str],
    charts: Sequence[dict[str, Any]] = (),
    tables: Sequence[dict[str, Any]] = (),
) -> Content:
    """The content of a page for runs that answered the same held-out prompts.

    Args:
        contents: of each run (`content.content`), with different run names.
        lines: sentences for the top of the page.
        charts, tables: of the comparison; they stand before those of the runs.
    """
    answers = _answers(contents)
    shared = [answers["columns"][n] for n in answers["baselines"]]
    own = shared if len(shared) == 1 else []  # a base model of all runs needs no run's name
    policies = [_renamed(policy, own) for each in contents for policy in each["policies"]]
    return {
        "title": title,
        "lines": list(lines),
        "facts": [[f"{each['title']}: {k}", v] for each in contents for k, v in each["facts"]],
        "policies": [policy for policy in policies if policy["id"] in answers["columns"]],
        "charts": [*charts, *_of_runs(contents, "charts")],
        "tables": [*tables, *_of_runs(contents, "tables")],
        "recipe": "\n".join(f"# {each['title']}\n{each['recipe']}" for each in contents),
        "training": _of_runs(contents, "training"),
        "answers": answers,
        "pairs": [entry for each in contents for entry in each["pairs"]],
        "left_out": [line for each in contents for line in each["left_out"]],
    }


def _id(run: str, ident: str) -> str:
    return f"{run}/{ident}"


def _renamed(policy: dict[str, Any], shared: Sequence[str]) -> dict[str, Any]:
    run, ident = policy["run"], _id(policy["run"], policy["id"])
    label = policy["label"] if ident in shared else f"{run}, {policy['label']}"
    return policy | {"id": ident, "label": label}


def _of_runs(contents: Sequence[Content], key: str) -> list[dict[str, Any]]:
    """The charts or tables of each run, whose titles name it."""
    return [
        one | {"id": f"{n}-{one['id']}", "title": f"{each['title']}: {one['title']}"}
        for n, each in enumerate(contents)
        for one in each[key]
    ]


def _answers(contents: Sequence[Content]) -> dict[str, Any]:
    """Every prompt of any run; a run that does not have it has no answers.

    The base model is one column for runs that start from it: those with the same answers.
    """
    prompts: dict[str, dict[str, Any]] = {}
    columns: list[str] = []
    baselines: list[int] = []
    for each in contents:
        found = each["answers"]
        by_id = {prompt["id"]: prompt for prompt in found["prompts"]}
        for prompt_id, prompt in by_id.items():
            empty = {"id": prompt_id, "prompt": prompt["prompt"], "answers": [None] * len(columns)}
            prompts.setdefault(prompt_id, empty)
        for n, ident in enumerate(found["columns"]):
            answers = [by_id[p]["answers"][n] if p in by_id else None for p in prompts]
            if n in found["baselines"]:
                if any(_same(answers, prompts, column) for column in baselines):
                    continue
                baselines.append(len(columns))
            columns.append(_id(each["policies"][n]["run"], ident))
            for prompt, answer in zip(prompts.values(), answers, strict=True):
                prompt["answers"].append(answer)
    return {"columns": columns, "baselines": baselines, "prompts": list(prompts.values())}


def _same(answers: Sequence[Any], prompts: dict[str, dict[str, Any]], column: int) -> bool:
    """Whether these are the answers of a column that is there already."""
    there = [prompt["answers"][column] for prompt in prompts.values()]
    return [one and one["text"] for one in answers] == [one and one["text"] for one in there]
