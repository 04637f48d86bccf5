"""Errors of judges as their servers write them: too long, filtered, unsupported, or none of these.

Texts are those of the vendors' documentation, sources and issue trackers, with numbers of our own.
"""

import json
from typing import Any

import pytest

from selm.ranking.server_error import read


def openai(message: str, **more: Any) -> str:
    return json.dumps({"error": {"message": message, "code": None, **more}})


TOO_LONG = {
    "OpenAI": (400, openai(
        "This model's maximum context length is 8192 tokens. However, your messages resulted in "
        "9001 tokens. Please reduce the length of the messages.", code="context_length_exceeded")),
    "OpenAI, a code alone": (400, openai("Your input is bad", code="context_length_exceeded")),
    "OpenAI, responses": (400, openai(
        "Your input exceeds the context window of this model. Please adjust your input and try "
        "again.", type="invalid_request_error")),
    "OpenAI, one string": (400, openai(
        "Invalid 'messages[0].content': string too long. Expected a string with maximum length "
        "1048576, but got a string with length 1048577 instead.", code="string_above_max_length")),
    "OpenAI, larger than a minute's share": (429, openai(
        "Request too large for gpt-4o in organization o on tokens per min (TPM): Limit 30000, "
        "Requested 40000. The input or output tokens must be reduced in order to run successfully.",
        type="tokens", code="rate_limit_exceeded")),
    "vLLM": (400, json.dumps({"object": "error", "message":
        "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens "
        "(2936 in the messages, 64 in the completion).", "type": "BadRequestError", "code": 400})),
    "vLLM, max_tokens": (400, openai(
        "'max_tokens' or 'max_completion_tokens' is too large: 64. This model's maximum context "
        "length is 4096 tokens and your request has 4050 input tokens", code=400)),
    "vLLM, prompt": (400, openai(
        "The decoder prompt (length 3000) is longer than the maximum model length of 2048. Make "
        "sure that `max_model_len` is no smaller than the number of text tokens.")),
    "vLLM, negative": (400, openai("max_tokens must be at least 1, got -952.")),
    "SGLang": (400, json.dumps({"object": "error", "message":
        "The input (6000 tokens) is longer than the model's context length (4096 tokens)."})),
    "SGLang, requested": (400, json.dumps({"message":
        "Requested token count exceeds the model's maximum context length of 4096 tokens."})),
    "SGLang, allowed": (400, openai(
        "Input length (5000 tokens) exceeds the maximum allowed length (4096 tokens).")),
    "llama.cpp": (400, json.dumps({"error": {"code": 400, "message":
        "the request exceeds the available context size, try increasing it",
        "type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 4096}})),
    "llama.cpp, a type alone": (400, json.dumps({"error": {"type": "exceed_context_size_error"}})),
    "llama.cpp, older": (500, openai("context size has been exceeded")),
    "llama-cpp-python": (400, openai("Requested tokens (5000) exceed context window of 2048")),
    "Anthropic": (400, json.dumps({"type": "error", "error": {"type": "invalid_request_error",
        "message": "prompt is too long: 210000 tokens > 200000 maximum"}})),
    "Anthropic, sum": (400, json.dumps({"type": "error", "error": {"message":
        "input length and `max_tokens` exceed context limit: 199000 + 2000 > 200000, decrease"}})),
    "Anthropic, bytes": (413, json.dumps({"type": "error", "error": {
        "type": "request_too_large", "message": "Request exceeds the maximum size"}})),
    "Gemini": (400, json.dumps([{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message":
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048575)."
        }}])),
    "Vertex": (400, json.dumps({"error": {"message": "Unable to submit request because the input "
        "token count is 40000 but model only supports up to 32768. Reduce the input token count."
        }})),
    "Mistral": (400, json.dumps({"object": "error", "type": "invalid_request_error", "code": 3051,
        "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with "
        "32768 maximum context length"})),
    "TGI": (422, json.dumps({"error": "Input validation error: `inputs` tokens + `max_new_tokens` "
        "must be <= 4096. Given: 5000 `inputs` tokens", "error_type": "validation"})),
    "TGI, inputs": (422, json.dumps({"error_type": "validation", "error":
        "Input validation error: `inputs` must have less than 1024 tokens. Given: 5000"})),
    "Ollama": (500, json.dumps({"error": "the input length exceeds the context length"})),
    "LM Studio": (400, json.dumps({"error": "Trying to keep the first 5000 tokens when context the "
        "overflows. However, the model is loaded with context length of only 4096 tokens"})),
    "Together": (422, openai("Input validation error: `inputs` must have less than 4097 tokens.")),
    "Groq": (400, openai("Please reduce the length of the messages or completion.",
        code="context_length_exceeded", param="messages")),
    "Groq, larger than a minute's share": (413, openai(
        "Request too large for model `llama` on tokens per minute (TPM): Limit 6000", code="rate")),
    "Cohere": (400, json.dumps({"message": "too many tokens: total number of tokens in the request "
        "cannot exceed 4081 - received 5000"})),
    "xAI": (400, json.dumps({"code": "Client specified an invalid argument", "error": "This "
        "model's maximum prompt length is 131072 but the request contains 537812 tokens."})),
    "Bedrock": (400, json.dumps({"message": "Input is too long for requested model."})),
    "DashScope": (400, openai("Range of input length should be [1, 30720]")),
    "Zhipu": (400, openai("Prompt exceeds max length", code="1261")),
    "Moonshot": (400, openai("Invalid request: Your request exceeded model token limit: 8192")),
    "Fireworks": (400, openai(
        "The prompt is too long: 140000, model maximum context length: 131071")),
    "OpenRouter": (200, json.dumps({"error": {"code": 400, "message": "Provider returned error",
        "metadata": {"raw": '{"message": "prompt is too long: 9 tokens > 8 maximum"}'}}})),
    "LiteLLM": (400, openai("litellm.ContextWindowExceededError: too long", code="400")),
    "TensorRT-LLM": (400, openai("The sum of prompt length (9000) and max_tokens (64) exceeds "
        "max_num_tokens (8192)")),
    "LMDeploy": (400, openai("The length of the input prompt exceeds session length")),
    "FastAPI": (422, json.dumps({"detail": [{"loc": ["body", "messages"], "type": "value_error",
        "msg": "the prompt is too long"}]})),
    "FastAPI, a string": (422, json.dumps({"detail": "Prompt length exceeds the maximum of 4096"})),
    "a list": (400, json.dumps({"errors": [{"message": "Your prompt has too many tokens"}]})),
    "text alone": (400, "Error: input exceeds the maximum number of tokens (4096)"),
    "a proxy": (413, "<html><h1>413 Request Entity Too Large</h1></html>"),
    "no words": (413, ""),
}  # fmt: skip

ELSE = {
    "a rate": (429, openai("Rate limit reached for gpt-4 on tokens per min (TPM): Limit 10000, "
        "Used 9000, Requested 2000. Please try again in 5s.", code="rate_limit_exceeded")),
    "Anthropic's rate": (429, openai("This request would exceed your organization's rate limit of "
        "20,000 input tokens per minute.")),
    "a rate as 400": (400, openai("Too many tokens, please wait: rate limit of 5 tokens per day")),
    "of the answer": (400, openai("max_tokens is too large: 99999. This model supports at most "
        "16384 completion tokens, whereas you provided 99999.", param="max_tokens")),
    "temperature": (400, openai("Unsupported value: 'temperature' does not support 0 with this "
        "model. Only the default (1) value is supported.", param="temperature")),
    "the model": (404, openai("The model `x` does not exist", code="model_not_found")),
    "the key": (401, openai("Incorrect API key provided", code="invalid_api_key")),
    "a crash": (500, openai("CUDA error: out of memory")),
    "busy": (503, openai("The model is loading; context length 4096")),
    "schema": (400, openai("response_format: json_schema is not supported")),
    "deep": (400, "[" * 100_000),
    "null": (400, "null"),
    "empty": (400, ""),
}  # fmt: skip


@pytest.mark.parametrize("vendor", TOO_LONG)
def test_a_question_that_is_too_long_is_known_as_that(vendor: str) -> None:
    error = read(*TOO_LONG[vendor])
    assert error.is_too_long, error
    assert not error.is_filtered


@pytest.mark.parametrize(
    "words",
    [
        "Request payload size exceeds the limit: 20971520 bytes.",
        "The total number of tokens (prompt + max_tokens) must be less than or equal to 4096",
        "prompt (5000 tokens) + max_tokens (64) > n_ctx (4096)",
        "Input tokens exceed the configured limit of 272000 tokens.",
        "You passed 9001 input tokens and requested 64 output tokens. However, the model's context "
        "length is only 8192 tokens",
        "at most 8192 tokens are supported; received 9000",
        "Conversation too long",
        "length of prompt (9000) exceeds 8192",
        "The input or output tokens must be reduced",
        "Token limit exceeded",
    ],
)
def test_words_of_nobody_in_particular_are_known_too(words: str) -> None:
    assert read(400, openai(words)).is_too_long
    assert read(422, words).is_too_long


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens: 99999 > 8192, which is the maximum allowed number of output tokens for claude",
        "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
        "Input validation error: `max_new_tokens` must be <= 512. Given: 1024",
        "body temperature Input should be less than or equal to 2",
        "temperature must be at most 2",
        "Conversation roles must alternate user/assistant",
        "'messages' is a required property",
        "stop: maximum 4 items",
    ],
)
def test_words_about_other_settings_are_not_taken_for_it(words: str) -> None:
    assert not read(400, openai(words)).is_too_long


@pytest.mark.parametrize("what", ELSE)
def test_what_is_something_else_is_not_taken_for_it(what: str) -> None:
    assert not read(*ELSE[what]).is_too_long


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, openai("The response was filtered", code="content_filter")),
        (400, openai("triggering Azure OpenAI's content management policy")),
        (
            400,
            openai("Input data may contain inappropriate content", code="data_inspection_failed"),
        ),
        (403, openai("Your input was flagged by moderation")),
        (400, openai("rejected by our safety system", code="content_policy_violation")),
    ],
)
def test_filters_are_known(status: int, body: str) -> None:
    assert read(status, body).is_filtered


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (openai("Unsupported parameter: 'max_tokens' is not supported"), "max_tokens"),
        (openai("Unrecognized request argument supplied: max_tokens"), "max_tokens"),
        (json.dumps({"detail": [{"loc": ["body", "temperature"], "msg": "extra fields not "
            "permitted", "type": "value_error.extra"}]}), "temperature"),
        (ELSE["temperature"][1], "temperature"),
        (openai("`temperature` is deprecated for this model."), "temperature"),
    ],
)  # fmt: skip
def test_parameters_that_are_refused_are_known(body: str, parameter: str) -> None:
    assert read(400, body).refuses(parameter)
    assert not read(400, body).refuses("response_format")


def test_words_are_found_wherever_they_stand() -> None:
    assert read(500, '{"error": {"message": "no GPU", "code": "x"}}').words == "no GPU x"
    assert read(400, '{"error": "plain"}').words == "plain"
    assert read(400, '{"error": ["a", {"message": "b"}]}').words == "a b"
    assert read(422, '{"detail": [{"loc": ["body", "n"], "msg": "bad"}]}').words == "body n bad"
    assert read(400, '{"message": {"detail": [{"msg": "bad"}]}}').words == "bad"
    assert read(400, "<html>").words == "<html>"
    assert read(400, '{"a": 1}').words == '{"a": 1}'
    assert read(200, '{"error": {"code": 402, "message": "pay"}}').is_out_of_credit
