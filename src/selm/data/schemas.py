"""The schemas of the artifacts: which columns a Parquet file of ours has."""

from datasets import Features, List, Value

_MESSAGES = List({"role": Value("string"), "content": Value("string")})

# Where prompts have tools, the columns `prompt` and `tools`: calls and functions as JSON text.
MESSAGES_WITH_TOOLS = List(
    {name: Value("string") for name in ("role", "content", "tool_calls", "name", "tool_call_id")}
)

# `columns`: the dataset's other columns as a JSON object, for each dataset has other ones; null
# where it has none.
RESPONSES = Features(
    {
        "prompt_id": Value("string"),
        "prompt": _MESSAGES,
        "chosen": _MESSAGES,
        "rejected": _MESSAGES,
        "responses": List(Value("string")),
        "finish_reasons": List(Value("string")),
        "num_tokens": List(Value("int64")),
        "columns": Value("string"),
    }
)

# TRL's conversational preference format, and beside it what SELM needs to know of the explored
# response. *_finish_reason: "stop", or "length" for a response that was cut at the token limit.
PREFERENCES = Features(
    {
        "prompt_id": Value("string"),
        "prompt": _MESSAGES,
        "chosen": _MESSAGES,
        "rejected": _MESSAGES,
        "explored": Value("string"),
        "explored_role": Value("string"),
        "chosen_finish_reason": Value("string"),
        "rejected_finish_reason": Value("string"),
        "explored_finish_reason": Value("string"),
        "scores": List(Value("float64")),
    }
)

# What a ranker said of a row's pool; `member_scores` has one list per member of an ensemble.
SCORES = Features(
    {
        "prompt_id": Value("string"),
        "scores": List(Value("float64")),
        "member_scores": List(List(Value("float64"))),
    }
)

EVALUATION = Features(
    {
        "prompt_id": Value("string"),
        "prompt": _MESSAGES,
        "response": Value("string"),
        "finish_reason": Value("string"),
        "num_tokens": Value("int64"),
        "reward": Value("float64"),
        "reward_of_base": Value("float64"),
    }
)
