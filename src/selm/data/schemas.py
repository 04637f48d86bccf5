"""The rows: of a dataset, and of each artifact that holds rows.

A row is a plain dict, and its type here is all that is said of it anywhere: the columns of Parquet
files (`parquet.features`), the tables of columns on the Hub's cards and in docs/artifacts.md are
made of these types and of the words beside them. Fields that are not required are columns only
where a prompt has tools, as text: calls and functions are of any form, so that it is their JSON.
"""

from collections.abc import Mapping
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypedDict,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

Tool = dict[str, Any]  # a function that the policy may call, as a JSON schema
FinishReason = Literal["stop", "length"]
Role = Literal["chosen", "rejected", "neither"]


class Text(TypedDict):
    """A message that is a text, such as every response."""

    role: str
    content: str


class Message(Text):
    """A message of a prompt; `name` and `tool_call_id` are of one that holds a tool's result."""

    tool_calls: NotRequired[list[dict[str, Any]]]
    name: NotRequired[str]
    tool_call_id: NotRequired[str]


class Prompted(TypedDict):
    """What the rows of all stages have."""

    prompt_id: Annotated[str, "the same in every stage; rows are joined by it"]
    prompt: Annotated[list[Message], "the conversation up to the user's last turn"]
    tools: Annotated[
        NotRequired[list[Tool] | None],
        "the functions that the policy may call, as JSON; there only if a prompt has any",
    ]


class DatasetRow(Prompted):
    """A row of a dataset, whatever form it had there; it is no artifact."""

    chosen: Annotated[str | None, "the preferred answer; None where there are prompts only"]
    rejected: Annotated[str | None, "the other answer; None where there are prompts only"]
    columns: Annotated[dict[str, Any], "what else the dataset says of the row"]


class ResponseRow(Prompted):
    """A prompt, the policy's answers, and what the dataset has beside it."""

    chosen: Annotated[
        list[Text] | None, "the dataset's preferred answer; null where it has prompts only"
    ]
    rejected: Annotated[
        list[Text] | None, "the dataset's other answer; null where it has prompts only"
    ]
    responses: Annotated[list[str], "the policy's answers"]
    finish_reasons: Annotated[
        list[FinishReason], "of each answer: stop, or length if it was truncated"
    ]
    num_tokens: Annotated[list[int], "of each answer"]
    columns: Annotated[str | None, "the dataset's other columns as JSON; null where it has none"]


class PairRow(Prompted):
    """TRL's conversational preference format; a dataset's own pair is a pool of two."""

    chosen: Annotated[list[Text], "the best of the pool"]
    rejected: Annotated[list[Text], "the worst of the pool"]


class PreferenceRow(PairRow):
    """A pair that was ranked, and what SELM needs to know of the explored answer."""

    explored: Annotated[
        str, "that of the optimism term: the policy's first, with xpo the base model's"
    ]
    explored_role: Annotated[Role, "what became of it: chosen, rejected or neither"]
    chosen_finish_reason: Annotated[
        FinishReason, "stop, or length for an answer that was truncated"
    ]
    rejected_finish_reason: Annotated[
        FinishReason, "stop, or length for an answer that was truncated"
    ]
    explored_finish_reason: Annotated[
        FinishReason, "stop, or length for an answer that was truncated"
    ]
    scores: Annotated[list[float], "the ranker's, of the pool's distinct texts"]


class ScoreRow(TypedDict):
    """What a ranker says of a row's pool: a shard of the stage that ranks, and no artifact."""

    prompt_id: Annotated[str, "the same in every stage"]
    scores: Annotated[
        list[float], "of the pool's distinct texts; empty for a prompt that it cannot read"
    ]
    member_scores: Annotated[list[list[float]], "the same by member of an ensemble"]


class EvaluationRow(Prompted):
    """A held-out prompt, the policy's greedy answer and its reward."""

    response: Annotated[str, "the policy's greedy answer"]
    finish_reason: Annotated[FinishReason, "stop, or length if it was truncated"]
    num_tokens: Annotated[int, "of the answer"]
    reward: Annotated[float, "by the ranker; higher is better"]
    reward_of_base: Annotated[float, "of the base model's answer to the same prompt"]


class LogpsRow(TypedDict):
    """How likely a policy finds the two answers that the dataset has to a held-out prompt."""

    prompt_id: Annotated[str, "the same in every stage; rows are joined by it"]
    chosen_logps: Annotated[float, "log-prob of the preferred answer, the sum over its tokens"]
    rejected_logps: Annotated[float, "log-prob of the other answer, the sum over its tokens"]
    chosen_tokens: Annotated[int, "of the preferred answer, as training truncates it"]
    rejected_tokens: Annotated[int, "of the other answer, as training truncates it"]


class BenchmarkRow(TypedDict):
    """The score of one question of a benchmark."""

    prompt_id: Annotated[str, "the question's id in the benchmark"]
    part: Annotated[str, "the category, the turn or the opponent; empty if there are no parts"]
    score: Annotated[float, "higher is better; the benchmark says what it means"]
    details: Annotated[str, "what else is known of the score, as JSON"]


# The rows of a stage by its name's last word: the answers to a benchmark are answers, too.
ARTIFACTS = {
    "responses": ResponseRow,
    "initial_responses": ResponseRow,
    "preferences": PreferenceRow,
    "answers": ResponseRow,
    "evaluation": EvaluationRow,
    "logps": LogpsRow,
    "results": BenchmarkRow,
}

PARQUET_TYPES = {str: "string", int: "int64", float: "float64"}


def fields(schema: Any, with_tools: bool = True) -> Mapping[str, Any]:
    """Field -> its type: str, int, float, a list of such, or a TypedDict.

    >>> list(fields(Message, with_tools=False).items())
    [('role', <class 'str'>), ('content', <class 'str'>)]
    """
    hints = get_type_hints(schema)
    required = {name: _plain(hints[name]) for name in hints if name in schema.__required_keys__}
    return required | ({name: str for name in hints if name not in required} if with_tools else {})


def described(schema: Any) -> list[tuple[str, str, str]]:
    """Name, type and meaning of every column, for tables that people read.

    >>> described(EvaluationRow)[-1]
    ('reward_of_base', 'float64', "of the base model's answer to the same prompt")
    """
    words = get_type_hints(schema, include_extras=True)
    return [
        (name, _type_name(kind), words[name].__metadata__[0])
        for name, kind in fields(schema).items()
    ]


def _plain(hint: Any) -> Any:
    """A field's type as Parquet has it: any column may be null, and a choice is a text."""
    if get_origin(hint) is UnionType:
        return _plain(get_args(hint)[0])
    if get_origin(hint) is list:
        return list[_plain(get_args(hint)[0])]
    return str if get_origin(hint) is Literal else hint


def _type_name(kind: Any) -> str:
    if get_origin(kind) is list:
        return f"list of {_type_name(get_args(kind)[0])}"
    if is_typeddict(kind):
        return "{" + ", ".join(fields(kind, with_tools=False)) + "}"
    return PARQUET_TYPES[kind]
