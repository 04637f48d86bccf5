"""An LLM that is asked anything, against a scripted server: replies, log-probs, resuming."""

import json
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import TEMPLATE, ChatServer, completion, error, serving
from chat_server import Reply as Sent
from patience import PATIENCE

from selm.errors import UserError
from selm.ranking.asking import EndpointAsker, ReplyLog
from selm.ranking.base import Question, Reply
from selm.ranking.kinds import kind_of
from selm.recipe.schema import Judge, Ranking

SECRET = "sk-Secret123"
LOGPROBS = {"A": -0.25, " B": -1.5, "b": -9.0}


@pytest.fixture
def asker_for(tmp_path: Path):
    """A server and keys of `judge`; an asker out: impatient, its replies in tmp_path/verdicts."""

    def make(server: ChatServer, model: str = "some-model", **judge: Any) -> EndpointAsker:
        ranking = Ranking(
            ranker="judge", name_or_path=model, judge=Judge(base_url=server.url, **judge)
        ).at("benchmarks.judge")
        return EndpointAsker(ranking, tmp_path / "verdicts", pause_seconds=0.01)

    return make


def questions(*texts: str, max_tokens: int = 7, logprobs: bool = False) -> list[Question]:
    return [Question(text, f"id of {text}", max_tokens, logprobs) for text in texts]


def asked(body: dict[str, Any]) -> str:
    return body["messages"][0]["content"]


def echo(body: dict[str, Any]) -> Sent:
    return completion(f"You said {asked(body)}.", LOGPROBS if "logprobs" in body else None)


def refuses(*keys: str) -> Callable[[dict[str, Any]], Sent]:
    """A server that says which key it does not know."""

    def script(body: dict[str, Any]) -> Sent:
        for key in keys:
            if key in body:
                return error(400, f"Unrecognized request argument supplied: {key}")
        return echo(body)

    return script


def test_a_judge_can_be_asked_and_no_other_ranker(asker_for) -> None:
    with serving(echo) as server:
        ranking = asker_for(server).ranking
        make = kind_of(ranking).asker
        assert make is not None
        [reply] = make(ranking, None).ask(questions("Why?"))
    assert reply.text == "You said Why?."
    assert kind_of(Ranking(ranker="random")).asker is None
    assert kind_of(Ranking(ranker="ensemble", rankers=(ranking, ranking))).asker is None


def test_replies_come_in_the_order_of_the_questions(asker_for) -> None:
    def later_is_faster(body: dict[str, Any]) -> Sent:
        return replace(echo(body), wait_seconds=0.05 * (5 - int(asked(body))))

    texts = [str(n) for n in range(6)]
    with serving(later_is_faster) as server:
        replies = asker_for(server, concurrency=6).ask(questions(*texts))
    assert replies == [Reply(f"You said {text}.", "stop", 10, 3) for text in texts]


def test_a_request_is_what_the_question_says(asker_for) -> None:
    with serving(echo) as server:
        asker = asker_for(server, temperature=0.5)
        asker.ask(questions("plain", max_tokens=9))
        asker.ask(questions("deep", max_tokens=1, logprobs=True))
    plain, deep = server.bodies
    assert plain == {
        "model": "some-model",
        "messages": [{"role": "user", "content": "plain"}],
        "max_tokens": 9,
        "temperature": 0.5,
    }
    assert (deep["max_tokens"], deep["logprobs"], deep["top_logprobs"]) == (1, True, 20)


def test_no_more_at_once_than_the_recipe_says(asker_for) -> None:
    three = threading.Barrier(3)

    def together(body: dict[str, Any]) -> Sent:
        three.wait(PATIENCE)  # nine questions: three times three at once
        return echo(body)

    with serving(together) as server:
        asker_for(server, concurrency=3).ask(questions(*map(str, range(9))))
    assert server.most_at_once == 3


# Log-probs


OLD_FORM = {"tokens": ["A"], "token_logprobs": [-0.25], "top_logprobs": [LOGPROBS]}
NONE_OF_TEXT = {"content": [{"token": 3, "logprob": -1}, {"token": "A", "logprob": -1}]}
SOME_BROKEN = {
    "content": [
        {
            "token": "A",
            "logprob": -0.25,
            "top_logprobs": [
                {"token": "A", "logprob": -0.25},
                {"token": "B", "logprob": None},
                {"token": "C", "logprob": True},
                {"token": "D", "logprob": 10**400},
                {"token": "E", "logprob": float("nan")},
                {"token": "F"},
                "G",
            ],
        }
    ]
}


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (OLD_FORM, LOGPROBS),
        (SOME_BROKEN, {"A": -0.25}),
        ({"content": [{"token": "A", "logprob": -0.25}]}, {"A": -0.25}),
        ({"content": [{"token": "A", "logprob": -1, "top_logprobs": 3}]}, {"A": -1.0}),
        (NONE_OF_TEXT, None),
        (None, None),
        ({"content": None}, None),
        ({"content": []}, None),
        ({"content": {"0": 1}}, None),
        ({"content": [[]]}, None),
        ({"top_logprobs": ["A"]}, None),
        ([], None),
        ("A", None),
    ],
)
def test_log_probs_are_read_in_the_forms_of_servers(asker_for, sent: Any, found: Any) -> None:
    def script(body: dict[str, Any]) -> Sent:
        whole = json.loads(str(echo(body).body))
        whole["choices"][0]["logprobs"] = sent
        return Sent(body=json.dumps(whole))

    with serving(script) as server:
        asker = asker_for(server)
        [reply] = asker.ask(questions("Why?", logprobs=True))
        assert reply.logprobs == found
        assert reply.text == "You said Why?."
        assert asker_for(server).ask(questions("Why?", logprobs=True)) == [reply], "kept as it is"
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "words",
    [
        "top_logprobs must be between 0 and 5",
        "Requested sample logprobs of 20, which is greater than max allowed: 5",
        "This model allows at most 5 top logprobs for each token of a request",
    ],
)
def test_fewer_log_probs_are_asked_for_where_twenty_are_too_many(
    asker_for, capsys, words: str
) -> None:
    def script(body: dict[str, Any]) -> Sent:
        return error(400, words) if body["top_logprobs"] > 5 else echo(body)

    with serving(script) as server:
        replies = asker_for(server, concurrency=1).ask(questions("x", "y", logprobs=True))
    assert [reply.logprobs for reply in replies] == [LOGPROBS] * 2
    assert [body["top_logprobs"] for body in server.bodies] == [20, 5, 5]
    assert "log-probs" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Unsupported parameter: 'logprobs' is not supported with this model."),
        (403, "You are not allowed to request logprobs from this model."),
        (422, "logprobs: Extra inputs are not permitted"),
        (501, "logprobs are not implemented"),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 8])
def test_an_endpoint_that_refuses_log_probs_is_asked_without_and_it_is_said_once(
    asker_for, capsys, status: int, words: str, concurrency: int
) -> None:
    def script(body: dict[str, Any]) -> Sent:
        return error(status, words) if "logprobs" in body else echo(body)

    texts = [str(n) for n in range(8)]
    with serving(script) as server:
        asker = asker_for(server, concurrency=concurrency)
        replies = asker.ask(questions(*texts, logprobs=True))
        assert [reply.logprobs for reply in replies] == [None] * 8
        assert replies[0].text == "You said 0."
        before = len(server.bodies)
        assert asker_for(server).ask(questions(*texts, logprobs=True)) == replies
        assert len(server.bodies) == before
    assert capsys.readouterr().out.count("asked for log-probs, refuses them") == 1


def test_an_endpoint_that_returns_no_log_probs_is_no_failure(asker_for, capsys) -> None:
    with serving(lambda body: completion("A")) as server:
        replies = asker_for(server).ask(questions("x", "y", logprobs=True))
        assert replies == [Reply("A", "stop", 10, 3)] * 2
        assert len(server.bodies) == 2
    assert capsys.readouterr().out.count("asked for log-probs, does not return them") == 1


def test_a_reasoning_model_that_is_cut_off_has_no_text(asker_for) -> None:
    """It refuses log-probs, renames the limit, and then one token is too few for it."""

    def script(body: dict[str, Any]) -> Sent:
        if "logprobs" in body:
            return error(403, "You are not allowed to request logprobs from this model.")
        if "max_tokens" in body:
            return error(400, "Unsupported parameter: use 'max_completion_tokens' instead")
        if body["max_completion_tokens"] < 9:
            words = "Could not finish the message because max_tokens or model output limit was"
            return error(400, f"{words} reached. Please try again with higher max_tokens.")
        return echo(body)

    with serving(script) as server:
        asker = asker_for(server, concurrency=1)
        [cut] = asker.ask(questions("x", max_tokens=1, logprobs=True))
        [whole] = asker.ask(questions("x", max_tokens=64))
        assert (cut, whole.text) == (Reply("", "length"), "You said x.")
        with pytest.raises(UserError, match=r"see benchmarks\.judge\.judge\.max_tokens$"):
            asker.ask(questions("y", max_tokens=3))


# What is kept


def test_nothing_is_asked_twice(asker_for) -> None:
    with serving(echo) as server:
        asker = asker_for(server)
        same = [Question("x", "p1", 7), Question("x", "p2", 7)]
        first = asker.ask([*same, *questions("y")])
        assert [reply.text for reply in first] == ["You said x.", "You said x.", "You said y."]
        assert len(server.bodies) == 2
        assert asker.ask(same) == first[:2]
        assert asker_for(server).ask([*same, *questions("y")]) == first
        assert asker_for(server, concurrency=1, timeout_seconds=9).ask(same) == first[:2]
        assert asker_for(server).ask([]) == []
        assert len(server.bodies) == 2


@pytest.mark.parametrize("change", ["model", "temperature", "max_tokens", "logprobs", "text"])
def test_a_changed_question_is_a_new_one(asker_for, change: str) -> None:
    with serving(echo) as server:
        asker_for(server).ask(questions("x"))
        judge = {"temperature": 0.7} if change == "temperature" else {}
        model = "another" if change == "model" else "some-model"
        text, most = ("y" if change == "text" else "x"), (8 if change == "max_tokens" else 7)
        new = questions(text, max_tokens=most, logprobs=change == "logprobs")
        asker_for(server, model, **judge).ask(new)
        assert len(server.bodies) == 2


@pytest.mark.parametrize(
    "refused",
    [("max_tokens", "max_completion_tokens"), ("logprobs",), ("top_logprobs", "max_tokens")],
)
def test_a_reply_without_what_was_refused_is_kept_as_that(
    asker_for, tmp_path: Path, refused: tuple[str, ...]
) -> None:
    with serving(refuses(*refused)) as server:
        asker_for(server, concurrency=1).ask(questions("x", logprobs=True))
        before = len(server.bodies)
        asker_for(server).ask(questions("x", logprobs=True))
        assert len(server.bodies) == before
        server.script = echo
        other = EndpointAsker(asker_for(server).ranking, tmp_path / "others")
        other.ask(questions("x", logprobs=True))
    assert not set(other.replies) & set(ReplyLog(tmp_path / "verdicts"))


def test_what_a_failure_leaves_is_kept_and_the_rest_is_asked(asker_for) -> None:
    texts = [str(n) for n in range(12)]

    def five_then_nothing(body: dict[str, Any]) -> Sent:
        return echo(body) if len(server.answered) < 5 else error(401, "expired")

    with serving(five_then_nothing) as server:
        fix = r"401 expired; set benchmarks\.judge\.judge\.api_key_env"
        with pytest.raises(UserError, match=fix):
            asker_for(server, concurrency=1).ask(questions(*texts))
        assert len(server.answered) == 5
        server.script = echo
        replies = asker_for(server).ask(questions(*texts))
    assert [reply.text for reply in replies] == [f"You said {text}." for text in texts]
    assert Counter(server.answered) == Counter(texts)


def test_ctrl_c_keeps_what_has_arrived(asker_for) -> None:
    main, texts = threading.get_ident(), [str(n) for n in range(12)]

    def script(body: dict[str, Any]) -> Sent:
        if len(server.answered) == 3:
            signal.pthread_kill(main, signal.SIGINT)
        return replace(echo(body), wait_seconds=0.05)

    with serving(script) as server:
        with pytest.raises(KeyboardInterrupt):
            asker_for(server, concurrency=1).ask(questions(*texts))
        answered = list(server.answered)
        assert 3 <= len(answered) < 12
        server.script = echo
        asker_for(server).ask(questions(*texts))
    assert Counter(server.answered) == Counter(texts)


@pytest.mark.parametrize("fault", [error(429, "slow", Retry_After="0"), error(500, "broken")])
def test_what_passes_is_asked_again(asker_for, fault: Sent) -> None:
    turns: Counter[str] = Counter()

    def script(body: dict[str, Any]) -> Sent:
        turns[asked(body)] += 1
        return fault if turns[asked(body)] < 3 else echo(body)

    with serving(script) as server:
        replies = asker_for(server).ask(questions("x", "y"))
    assert [reply.text for reply in replies] == ["You said x.", "You said y."]
    assert set(turns.values()) == {3}


def test_refusals_and_long_questions_are_replies(asker_for, capsys) -> None:
    def script(body: dict[str, Any]) -> Sent:
        if asked(body) == "long":
            return error(400, "This model's maximum context length is 9 tokens. However, ...")
        if asked(body) == "rude":
            return error(400, "The response was filtered: content_filter")
        return completion(None, refusal="No.")

    with serving(script) as server:
        replies = asker_for(server).ask(questions("long", "rude", "other", logprobs=True))
    reasons = [reply.finish_reason for reply in replies]
    assert reasons == ["too_long", "content_filter", "content_filter"]
    assert "log-probs" not in capsys.readouterr().out, "they do not show that it has none"


def test_a_damaged_reply_is_asked_again(asker_for, tmp_path: Path, capsys) -> None:
    with serving(echo) as server:
        asker = asker_for(server, concurrency=1)
        asker.ask(questions("x", "y", "z", logprobs=True))
        [log] = (tmp_path / "verdicts").iterdir()
        first, second, third = log.read_text(encoding="utf-8").splitlines()
        changed = json.loads(second) | {"logprobs": {"A": "likely"}}
        log.write_text("\n".join([first, json.dumps(changed), third[:-9]]), encoding="utf-8")
        asker_for(server).ask(questions("x", "y", "z", logprobs=True))
        assert len(server.bodies) == 3 + 2
    assert f"{log}: 2 lines are damaged" in capsys.readouterr().out


def test_the_key_is_in_no_reply_and_on_no_disk(asker_for, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_KEY", SECRET)
    script = completion(f"Your key is {SECRET}", {SECRET: -0.5})
    with serving(lambda body: script) as server:
        [reply] = asker_for(server, api_key_env="SOME_KEY").ask(questions("x", logprobs=True))
    assert (reply.text, reply.logprobs) == ("Your key is ***", {"***": -0.5})
    [log] = (tmp_path / "verdicts").iterdir()
    assert SECRET not in log.read_text(encoding="utf-8")


def test_texts_of_any_kind_can_be_asked_and_kept(asker_for) -> None:
    texts = ("", "\ud800", "\x00\x1b[31m", "naïve 中文 🙂 \u2028")
    with serving(echo) as server:
        replies = asker_for(server).ask(questions(*texts))
        assert asker_for(server).ask(questions(*texts)) == replies
        assert len(server.bodies) == len(texts)
    assert replies[1].text == "You said \ufffd."


def test_nobody_listening_is_said_at_once(asker_for) -> None:
    with serving(echo) as server, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=r"^benchmarks\.judge\.judge\.base_url: no server ans"):
            asker_for(server).ask(questions("x"))


def test_verdicts_and_replies_share_a_folder(asker_for, tmp_path: Path) -> None:
    from pools import pools_of

    from selm.ranking.judge import JudgeRanker

    template = tmp_path / "template.txt"
    template.write_text(TEMPLATE, encoding="utf-8")
    with serving(lambda body: completion("A")) as server:
        asker = asker_for(server, template=str(template))
        asker.ask(questions("x"))
        ranker = JudgeRanker(asker.ranking, tmp_path / "verdicts")
        pools = pools_of(["p"], [[{"role": "user", "content": "Hi"}]], [["a", "b"]])
        assert ranker.score(pools) == [[0.5, 0.5]]
        again = JudgeRanker(asker.ranking, tmp_path / "verdicts")
        assert (len(again.verdicts), len(ReplyLog(tmp_path / "verdicts"))) == (2, 1)
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "verdicts").iterdir())
    assert names == ["replies", "verdicts"]
