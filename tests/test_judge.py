"""The LLM judge against a scripted server: verdicts, faults, resuming, and what it reports."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from chat_server import TEMPLATE, ChatServer, Reply, completion, error, longer_wins, serving, shown
from patience import PATIENCE
from pools import pools_of

from selm.data.prompts import as_messages
from selm.errors import UserError
from selm.ranking.base import Pool
from selm.ranking.endpoint import Answer, Pace
from selm.ranking.judge import JudgeRanker, fill, win_shares
from selm.ranking.kinds import in_words, load_ranker, ranking_facts
from selm.ranking.prefer import prefer
from selm.ranking.verdicts import VerdictLog, parse_outcome, read_verdict
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Judge, Ranking

HI = [{"role": "user", "content": "Hi"}]
SECRET = "sk-Secret123"
SLOW = 3.0  # seconds: a reply that comes too late, where half of it is the limit


@pytest.fixture
def ranking_for(tmp_path: Path):
    """A server or a URL, and keys of `ranking.judge`; the section of a recipe out."""
    template = tmp_path / "template.txt"
    template.write_text(TEMPLATE, encoding="utf-8")

    def make(server: ChatServer | str, **judge: Any) -> Ranking:
        url = server if isinstance(server, str) else server.url
        settings = Judge(**{"base_url": url, "template": str(template), **judge})
        return Ranking(ranker="judge", name_or_path="some-model", judge=settings)

    return make


@pytest.fixture
def ranker_for(ranking_for, tmp_path: Path):
    """The same, with the ranker out: impatient, its verdicts in tmp_path/verdicts."""

    def make(server: ChatServer | str, **judge: Any) -> JudgeRanker:
        return JudgeRanker(ranking_for(server, **judge), tmp_path / "verdicts", pause_seconds=0.01)

    return make


def numbered(pools: Sequence[list[str]]) -> list[Pool]:
    """Of the prompts p0, p1, ..."""
    names = [f"p{i}" for i in range(len(pools))]
    return pools_of(names, [[{"role": "user", "content": name}] for name in names], pools)


def score(ranker: JudgeRanker, *pools: list[str]) -> list[list[float]]:
    return ranker.score(numbered(pools))


def refusal(ranker: JudgeRanker, *pools: list[str]) -> str:
    with pytest.raises(UserError) as caught:
        score(ranker, *(pools or [["a", "bb"]]))
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


def each(first: Reply, *then: Reply) -> Callable[[dict[str, Any]], Reply]:
    """Each question gets these replies in turn, and `longer_wins` after them."""
    asked: Counter[str] = Counter()
    replies = [first, *then]

    def script(body: dict[str, Any]) -> Reply:
        question = body["messages"][0]["content"]
        asked[question] += 1
        return [*replies, longer_wins(body)][min(asked[question] - 1, len(replies))]

    return script


# Scores


def test_every_pair_is_shown_in_both_orders_and_scored_by_wins(ranker_for) -> None:
    with serving() as server:
        scores = score(ranker_for(server), ["bb", "a", "ccc"], ["x", "yy"])
    assert scores == [[0.5, 0.0, 1.0], [0.0, 1.0]]
    assert len(server.bodies) == 6 + 2
    pairs = {shown(body) for body in server.bodies}
    assert {("bb", "a"), ("a", "bb"), ("x", "yy"), ("yy", "x")} < pairs


def test_identical_candidates_are_not_asked_about(ranker_for) -> None:
    with serving() as server:
        assert score(ranker_for(server), ["a", "a"], ["b"], ["a", "bb", "a"]) == [
            *([0.5, 0.5], [0.5]),
            [0.25, 1.0, 0.25],
        ]
        assert ranker_for(server).tie == 0.5
        assert len(server.bodies) == 2


def test_win_shares_by_hand() -> None:
    assert win_shares([[0, 1], [-1, 0]]) == [1.0, 0.0]
    assert win_shares([[0, 1], [1, 0]]) == [0.5, 0.5]  # whoever stands first wins
    assert win_shares([[0, 1], [0, 0]]) == [0.75, 0.25]  # a win and a tie
    assert win_shares([[0.0]]) == [0.5]


def test_the_matrix_holds_the_verdicts_by_order(ranker_for) -> None:
    def first_wins_unless_empty(body: dict[str, Any]) -> Reply:
        return completion('{"winner": "B"}' if shown(body)[0] == "" else '{"winner": "A"}')

    with serving(first_wins_unless_empty) as server:
        assert ranker_for(server).compare(pools_of(["p"], [HI], [["", "x", "y"]])) == [
            [[0.0, -1.0, -1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
        ]


NASTY = [
    "{response_b} {prompt} {0} {} }{",
    "{{response_a}} {% raw %}",
    "\\1 \\g<0> $1 %s",
    'She said: {"winner": "A"} [[A]]',
    "<think> </think>\n=== End ===",
    "\u2028 naïve 中文 🙂 \x00 \t",
]


def test_no_text_breaks_the_template(ranker_for) -> None:
    with serving() as server:
        score(ranker_for(server), NASTY)
    assert Counter(shown(body) for body in server.bodies) == Counter(
        (a, b) for a in NASTY for b in NASTY if a != b
    )
    for prompt in NASTY:
        assert fill("{prompt}|{response_a}|{response_b}|{x}", (prompt, "a", "b")) == (
            f"{prompt}|a|b|{{x}}"
        )


def test_turns_of_a_conversation_are_told_apart(ranker_for) -> None:
    prompt = [*HI, {"role": "assistant", "content": "Hey."}, {"role": "user", "content": "Why?"}]
    with serving() as server:
        ranker_for(server).score(pools_of(["p"], [prompt], [["a", "bb"]]))
    question = server.bodies[0]["messages"][0]["content"]
    assert question.startswith("Asked: user: Hi\n\nassistant: Hey.\n\nuser: Why?\nA:")


# Verdicts


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ('{"winner": "A"}', "first"),
        ('{"winner":"B"}', "second"),
        ('{\n "winner": "tie"\n}', "tie"),
        ('```json\n{"winner": "a"}\n```', "first"),
        ('B is wrong about {x}. {"reason": "A {is} right", "winner": "Response A"}', "first"),
        ('First {"winner": "A"}, no: {"winner": "B"}', "second"),
        ('<think>{"winner": "A"}</think>{"winner": "B"}', "second"),
        ("[[A]]", "first"),
        ("I think that B is better. [[B]]", "second"),
        ("[[C]]", "tie"),
        ("A", "first"),
        ("**B**", "second"),
        (" Tie.\n", "tie"),
        ("Winner: B", "second"),
        ("Answer A.", "first"),
        ("", None),
        ("A or B?", None),
        ("A is better than B", None),
        ('{"winner": "neither"}', None),
        ('{"winner": ', None),
        ("<think>It is A", None),
        ('{"a":' * 5000, None),
    ],
)
def test_a_verdict_is_read_or_it_is_not(text: str, outcome: str | None) -> None:
    assert parse_outcome(text) == outcome


def test_what_is_no_verdict_is_a_tie_of_its_own_kind() -> None:
    def outcome(text: str, finish_reason: str = "stop") -> str:
        return read_verdict(Answer(text, finish_reason)).outcome

    assert outcome("I'm sorry, but I can't compare these.") == "refusal"
    assert outcome("", "content_filter") == "refusal"
    assert outcome("", "too_long") == "too_long"
    assert outcome("Both have merits, and", "length") == "unparsable"
    assert outcome('Sorry, A is wrong. {"winner": "B"}') == "second"


def test_refusals_and_unreadable_verdicts_are_ties_and_counted(ranker_for, ranking_for) -> None:
    def script(body: dict[str, Any]) -> Reply:
        a, b = shown(body)
        if "long" in (a, b):
            return error(400, "This model's maximum context length is 9 tokens. However, ...")
        if "filtered" in (a, b):
            return error(400, "The response was filtered: content_filter")
        if "secret" in (a, b):
            return completion(None, refusal="No.")
        return completion("Well..." if "odd" in (a, b) else '{"winner": "A"}')

    pools = [["x", y] for y in ("long", "filtered", "secret", "odd", "y")]
    with serving(script) as server:
        ranker = ranker_for(server)
        assert score(ranker, *pools) == [[0.5, 0.5]] * 5
    facts = ranker.facts(numbered(pools))
    assert facts == {
        **{"verdicts": 10, "first": 2, "second": 0, "tie": 0},
        **{"refusal": 4, "unparsable": 2, "too_long": 2},
        **{"flip_rate": 1.0, "first_wins": 1.0},
        **{"prompt_tokens": 60, "completion_tokens": 18},
    }
    again = ranking_facts(ranking_for(server), numbered(pools), ranker.verdicts._folder)
    assert again == {"judge some-model": facts}
    assert in_words(again).startswith("judge some-model: 10 verdicts, 2 first, 4 refusal, 2 unpars")


def test_position_bias_is_counted_over_pairs_with_two_verdicts(ranker_for) -> None:
    def script(body: dict[str, Any]) -> Reply:
        a, b = shown(body)
        if {a, b} == {"x", "flip"}:
            return completion('{"winner": "B"}')
        if {a, b} == {"x", "half"}:
            return completion('{"winner": "tie"}' if a == "x" else '{"winner": "A"}')
        if {a, b} == {"x", "odd"}:
            return completion("?" if a == "x" else '{"winner": "A"}')
        return longer_wins(body)

    pools = [["x", "flip"], ["x", "half"], ["x", "odd"], ["x", "steady"], ["x", "firm"]]
    with serving(script) as server:
        ranker = ranker_for(server)
        score(ranker, *pools)
    facts = ranker.facts(numbered(pools))
    assert facts["flip_rate"] == 0.25  # of flip, half, steady and firm
    assert facts["first_wins"] == 0.5  # half, odd, steady, firm against flip twice, steady, firm


# The request


def test_a_request_holds_model_question_and_schema(ranker_for, monkeypatch) -> None:
    monkeypatch.setenv("SOME_KEY", f" {SECRET}\n")
    with serving() as server:
        score(ranker_for(server, api_key_env="SOME_KEY", max_tokens=9, temperature=0.5), ["a", "b"])
        score(ranker_for(server, temperature=None, json_schema=False), ["a", "b"])
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("some-model", 9, 0.5)
    assert "response_format" not in server.bodies[-1]
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["winner"]
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert server.headers[0]["path"] == "/v1/chat/completions"
    assert "temperature" not in server.bodies[-1]
    assert "Authorization" not in server.headers[-1]


def test_a_server_without_json_schemas_is_asked_without(ranker_for, capsys) -> None:
    def script(body: dict[str, Any]) -> Reply:
        if "response_format" in body:
            return error(400, "response_format: json_schema is not supported by this model")
        return longer_wins(body)

    with serving(script) as server:
        ranker = ranker_for(server, concurrency=1)
        assert score(ranker, ["a", "bb"], ["cc", "d"]) == [[0.0, 1.0], [1.0, 0.0]]
    assert len(server.bodies) == 4 + 1
    assert capsys.readouterr().out.count("does not accept a JSON schema") == 1


def test_a_model_with_the_newer_name_of_the_token_limit_gets_that(ranker_for) -> None:
    def script(body: dict[str, Any]) -> Reply:
        if "max_tokens" in body:
            return error(400, "Unsupported parameter: use 'max_completion_tokens' instead")
        return longer_wins(body)

    with serving(script) as server:
        assert score(ranker_for(server, concurrency=1), ["a", "bb"]) == [[0.0, 1.0]]
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 64, 64]


def test_no_more_requests_at_once_than_asked_for(ranker_for) -> None:
    three = threading.Barrier(3)

    def together(body: dict[str, Any]) -> Reply:
        three.wait(PATIENCE)  # twelve questions: four times three at once
        return longer_wins(body)

    with serving(together) as server:
        score(ranker_for(server, concurrency=3), *(["a", f"b{i}"] for i in range(6)))
    assert server.most_at_once == 3


def test_no_more_requests_a_minute_than_asked_for(ranker_for) -> None:
    with serving() as server:
        started = time.monotonic()
        score(ranker_for(server, requests_per_minute=1200), ["a", "bb", "ccc"])
    arrived = [each - started for each in server.times]
    assert len(arrived) == 6
    # One every 60 s / 1200, however late some are: by no time have more arrived than are due.
    assert all(seconds >= 0.05 * k for k, seconds in enumerate(sorted(arrived))), arrived


# Faults


@pytest.mark.parametrize(
    "fault",
    [
        error(500, "out of order"),
        error(503, "starting"),
        Reply(502, "<html>Bad gateway</html>"),
        error(429, "too many", Retry_After="0"),
        error(429, "too many"),
        Reply(200, "this is no JSON"),
        Reply(200, b"\xff\xfe\x00"),
        Reply(200, '{"choices": []}'),
        Reply(200, '{"error": {"message": "upstream"}}'),
        Reply(200, "[1, 2]"),
        Reply(200, '{"choices": [{"message": "text"}]}'),
        Reply(hang_up=True),
        Reply(200, "not gzip", {"Content-Encoding": "gzip"}),
        Reply(200, wait_seconds=SLOW),
    ],
    ids=lambda reply: f"{reply.status}-{str(reply.body)[:20]}-{reply.wait_seconds}",
)
def test_what_passes_is_tried_again_and_nothing_is_lost(ranker_for, fault: Reply) -> None:
    with serving(each(fault, fault)) as server:
        seconds = SLOW / 2 if fault.wait_seconds else PATIENCE
        ranker = ranker_for(server, timeout_seconds=seconds)
        assert score(ranker, ["bb", "a", "ccc"], ["x", "yy"]) == [[0.5, 0.0, 1.0], [0.0, 1.0]]
    asked = Counter(body["messages"][0]["content"] for body in server.bodies)
    assert set(asked.values()) == {3}
    assert len(asked) == len(ranker.verdicts) == 8


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_holds_every_request(ranker_for, as_date: bool) -> None:
    """The first request is told to wait for a second (a date has whole seconds: for one or two)."""
    replies = iter([True])

    def script(body: dict[str, Any]) -> Reply:
        if next(replies, False):
            seconds = formatdate(time.time() + 2, usegmt=True) if as_date else "1"
            return error(429, "slow down", Retry_After=seconds)
        return longer_wins(body)

    with serving(script) as server:
        score(ranker_for(server, concurrency=1), ["a", "bb"])
    assert len(server.bodies) == 3
    assert server.times[1] - server.times[0] > 0.9


def test_many_rate_limits_do_not_use_up_the_attempts(ranker_for) -> None:
    limit = error(429, "too many", Retry_After="0")
    with serving(each(*[limit] * 20)) as server:
        assert score(ranker_for(server), ["a", "bb"]) == [[0.0, 1.0]]
    assert len(server.bodies) == 2 * 21


def test_a_server_that_keeps_failing_ends_the_stage_with_its_words(ranker_for) -> None:
    with serving(lambda body: error(500, "no GPU\nleft")) as server:
        message = refusal(ranker_for(server, concurrency=1))
    assert message == (
        f"{server.url}/chat/completions: failed 8 times on one request; the last error: "
        "500 no GPU left; all verdicts so far are kept, repeat the command to continue"
    )
    assert len(server.bodies) == 8


def test_garbage_is_shown(ranker_for) -> None:
    with serving(lambda body: Reply(200, "<html>Welcome!</html>")) as server:
        assert "wanted a chat completion, got '<html>Welcome!</html>'" in refusal(
            ranker_for(server)
        )


def test_a_wait_of_hours_is_left_to_the_user(ranker_for) -> None:
    for status in (429, 503):
        with serving(lambda body, s=status: error(s, "closed", Retry_After="86400")) as server:
            message = refusal(ranker_for(server))
        assert f"asks to wait 86400 seconds; the last error: {status} closed" in message


def test_nobody_listening_is_said_at_once(ranker_for) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        message = refusal(ranker_for(url))
    assert message.startswith(
        f"ranking.judge.base_url: no server answers at {url}/chat/completions"
    )
    assert "start it, or correct the URL" in message


def test_a_server_that_goes_away_later_is_tried_again(ranker_for) -> None:
    def closing(body: dict[str, Any]) -> Reply:
        return replace(longer_wins(body), headers={"Connection": "close"})

    with serving(closing) as server:
        ranker = ranker_for(server)
        score(ranker, ["a", "bb"])
    assert "failed 8 times" in refusal(ranker, ["c", "dd"])


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(401, f"Incorrect API key: {SECRET}"), "401 Incorrect API key: ***; the key in"),
        (error(403, "not for you"), "403 not for you; the key in SOME_KEY is not accepted"),
        (
            error(404, "no such model"),
            "404 no such model; check that there is a model 'some-model'",
        ),
        (Reply(405, "Method Not Allowed"), "405 Method Not Allowed; see ranking.judge"),
        (error(400, "bad temperature"), "400 bad temperature; see ranking.judge"),
        (error(429, "insufficient_quota: pay first"), "429 insufficient_quota: pay first"),
        (Reply(301, "", {"Location": "https://elsewhere"}), "301; see ranking.judge"),
    ],
)
def test_what_does_not_pass_is_said_at_once(
    ranker_for, monkeypatch, reply: Reply, words: str
) -> None:
    monkeypatch.setenv("SOME_KEY", SECRET)
    with serving(lambda body: reply) as server:
        message = refusal(ranker_for(server, api_key_env="SOME_KEY", concurrency=1))
    assert f"{server.url}/chat/completions: {words}" in message
    assert len(server.bodies) == 1


def test_the_key_must_be_there_and_is_never_written(ranker_for, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with serving() as server:
        message = refusal(ranker_for(server, api_key_env="SOME_KEY"))
        assert "the environment variable SOME_KEY is not set" in message
        monkeypatch.setenv("SOME_KEY", SECRET)
        score(ranker_for(server, api_key_env="SOME_KEY"), ["a", "bb"])
    written = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 2
    assert not any(SECRET in text for text in written)


# Resuming


def test_what_was_answered_is_not_asked_again(ranker_for) -> None:
    """The server fails for good after five answers; another process goes on from there."""
    pools = [["bb", "a", "ccc"], ["x", "yy"]]

    def five_then_nothing(body: dict[str, Any]) -> Reply:
        return longer_wins(body) if len(server.answered) < 5 else error(401, "expired")

    with serving(five_then_nothing) as server:
        refusal(ranker_for(server, concurrency=1), *pools)
        assert len(server.answered) == 5
        server.script = longer_wins
        assert score(ranker_for(server), *pools) == [[0.5, 0.0, 1.0], [0.0, 1.0]]
        assert Counter(server.answered) == Counter(set(server.answered))
        assert len(server.answered) == 8
        before = len(server.bodies)
        assert score(ranker_for(server), *pools) == [[0.5, 0.0, 1.0], [0.0, 1.0]]
        assert len(server.bodies) == before


def test_answers_under_way_at_an_error_are_kept(ranker_for) -> None:
    refused = threading.Event()

    def script(body: dict[str, Any]) -> Reply:
        a, b = shown(body)
        if "bad" in (a, b):
            refused.set()
            return error(400, "refused")
        refused.wait(5)
        return replace(longer_wins(body), wait_seconds=0.3)

    with serving(script) as server:
        ranker = ranker_for(server, concurrency=4)
        refusal(ranker, ["x", "yy"], ["x", "bad"], *(["x", f"z{i}"] for i in range(20)))
        answered = set(server.answered)
    assert 1 <= len(answered) < 44, "all was asked in spite of the error"
    assert len(ranker_for(server).verdicts) == len(answered)


def test_a_verdict_cut_by_a_kill_is_asked_again(ranker_for, tmp_path: Path) -> None:
    with serving() as server:
        score(ranker_for(server), ["a", "bb", "ccc"])
        (log,) = (tmp_path / "verdicts").iterdir()
        text = log.read_text(encoding="utf-8")
        log.write_text(text[:-20], encoding="utf-8")
        assert len(VerdictLog(tmp_path / "verdicts")) == 5
        assert score(ranker_for(server), ["a", "bb", "ccc"]) == [[0.0, 0.5, 1.0]]
        assert len(server.bodies) == 7
    assert len(VerdictLog(tmp_path / "verdicts")) == 6
    assert log.read_text(encoding="utf-8") == text[:-20]  # each process writes a file of its own


@pytest.mark.parametrize("change", ["model", "template", "temperature", "max_tokens", "text"])
def test_a_changed_question_is_a_new_one(ranking_for, tmp_path: Path, change: str) -> None:
    with serving() as server:
        ranking = ranking_for(server)
        score(JudgeRanker(ranking, tmp_path / "verdicts"), ["a", "bb"])
        judge = ranking.judge
        if change == "model":
            ranking = ranking.model_copy(update={"name_or_path": "another"})
        elif change == "template":
            Path(judge.template).write_text("Please. " + TEMPLATE, encoding="utf-8")
        elif change != "text":
            judge = judge.model_copy(update={change: 7})
            ranking = ranking.model_copy(update={"judge": judge})
        pool = ["a", "b" if change == "text" else "bb"]
        score(JudgeRanker(ranking, tmp_path / "verdicts"), pool)
        assert len(server.bodies) == 4


def test_where_and_how_fast_it_is_asked_is_no_new_question(ranking_for, tmp_path: Path) -> None:
    with serving() as one, serving() as other:
        score(JudgeRanker(ranking_for(one), tmp_path / "verdicts"), ["a", "bb"])
        moved = ranking_for(other, concurrency=2, timeout_seconds=9, requests_per_minute=9)
        score(JudgeRanker(moved, tmp_path / "verdicts"), ["a", "bb"])
        assert (len(one.bodies), len(other.bodies)) == (2, 0)


def test_a_pace_lets_nobody_start_before_the_named_time() -> None:
    pace = Pace(None)
    pace.wait()
    pace.hold(0.2)
    started = time.monotonic()
    pace.wait()
    assert time.monotonic() - started >= 0.19


# In a recipe


def test_a_judge_who_decides_by_the_place_alone_is_seen_through(
    tiny_recipe: str, ranking_for, tmp_path: Path
) -> None:
    """All pairs are ties then; the error says why."""
    with serving(lambda body: completion('{"winner": "A"}')) as server:
        ranking = ranking_for(server)
        recipe = load_recipe(tiny_recipe).model_copy(update={"ranking": ranking})
        row = {"prompt_id": "p", "prompt": HI, "responses": ["y"], "finish_reasons": ["stop"]}
        row |= {"chosen": as_messages("w"), "rejected": as_messages("l")}
        with pytest.raises(UserError, match=r"none of the .*'tie': 1.*6 first, 1.0 flip_rate"):
            prefer([row], recipe, tmp_path, tmp_path / "verdicts")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ranking.name_or_path=null", r"ranking.name_or_path: missing \(the model's name at"),
        ("ranking.judge.base_url=localhost:8000", "base_url: wanted a URL such as http://local"),
        (f"ranking.judge.base_url=http://me:{SECRET}@host/v1", "must not hold a user or password"),
        (f"ranking.judge.api_key_env={SECRET}", "wanted the name of an environment variable"),
        ("ranking.judge.template=no/such.txt", "ranking.judge.template: no such file: no/such.txt"),
        ("ranking.judge.template={empty}", r"must contain \{prompt\} and \{response_a\}"),
        ("ranking.judge.concurrency=0", "ranking.judge.concurrency: "),
        ("ranking.judge.baseurl=x", "ranking.judge.baseurl: unknown key.*did you mean base_url"),
    ],
)
def test_a_judge_that_cannot_work_is_refused_before_anything_runs(
    tiny_recipe: str, tmp_path: Path, override: str, message: str
) -> None:
    (tmp_path / "empty.txt").write_text("Who wins? {response_b}", encoding="utf-8")
    judge = ["ranking.ranker=judge", "ranking.name_or_path=m"]
    override = override.replace("{empty}", str(tmp_path / "empty.txt"))
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(tiny_recipe, [*judge, override])
    assert SECRET not in str(caught.value)


def test_the_default_template_asks_for_what_is_read(tiny_recipe: str) -> None:
    judge = ["ranking.ranker=judge", "ranking.name_or_path=m"]
    recipe = load_recipe(tiny_recipe, judge)
    ranker = load_ranker(recipe.ranking, recipe.seed)
    assert isinstance(ranker, JudgeRanker)
    text = ranker.template
    for winner, outcome in (("A", "first"), ("B", "second"), ("tie", "tie")):
        wanted = json.dumps({"winner": winner})
        assert wanted in text
        assert parse_outcome(wanted) == outcome


# Other vendors' servers


@pytest.mark.parametrize(
    "fault",
    [
        error(400, "prompt is too long: 210000 tokens > 200000 maximum"),
        Reply(400, '{"error": {"type": "exceed_context_size_error", "message": "no"}}'),
        Reply(500, '{"error": "the input length exceeds the context length"}'),
        Reply(422, '{"detail": [{"loc": ["body"], "msg": "the prompt is too long"}]}'),
        Reply(413, "<html>Request Entity Too Large</html>"),
        Reply(200, '{"error": {"code": 400, "message": "maximum context length is 9 tokens"}}'),
        error(429, "Request too large for gpt on tokens per min (TPM): Limit 9, Requested 10"),
    ],
)
def test_a_pair_too_long_in_any_words_is_a_tie_and_named(ranker_for, capsys, fault: Reply) -> None:
    def script(body: dict[str, Any]) -> Reply:
        return fault if "long" in shown(body) else longer_wins(body)

    with serving(script) as server:
        ranker = ranker_for(server)
        assert score(ranker, ["a", "bb"], ["x", "long"]) == [[0.0, 1.0], [0.5, 0.5]]
        assert len(server.bodies) == 4, "asked once and not again"
    said = capsys.readouterr().out
    assert (
        "some-model: 2 of 4 verdicts are ties, too_long; the first one is for the prompt p1: "
        in said
    )
    facts = ranker.facts(numbered([["a", "bb"], ["x", "long"]]))
    assert (facts["verdicts"], facts["too_long"]) == (4, 2)


def test_a_model_that_takes_no_temperature_says_which_key_to_set(ranker_for) -> None:
    """It is not left out unasked: the verdicts would no longer be those of temperature 0."""
    words = "Unsupported value: 'temperature' does not support 0 with this model."
    with serving(lambda body: error(400, words)) as server:
        message = refusal(ranker_for(server, concurrency=1))
        assert message.endswith("set ranking.judge.temperature=null to send none")
        assert len(server.bodies) == 1
        server.script = longer_wins
        assert score(ranker_for(server, temperature=None), ["a", "bb"]) == [[0.0, 1.0]]


@pytest.mark.parametrize(
    "words",
    [
        "This model does not support response format `json_schema`",
        "JSON mode is not supported",
        '{"detail": [{"loc": ["body", "response_format"], "msg": "Extra inputs not permitted"}]}',
        "Failed to compile the grammar",
    ],
)
def test_a_server_that_refuses_the_schema_in_any_words_is_asked_without(
    ranker_for, words: str
) -> None:
    def script(body: dict[str, Any]) -> Reply:
        if "response_format" not in body:
            return longer_wins(body)
        return Reply(422, words) if words.startswith("{") else error(400, words)

    with serving(script) as server:
        assert score(ranker_for(server, concurrency=1), ["a", "bb"]) == [[0.0, 1.0]]
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    "fault",
    [
        error(503, "the JSON schema engine is not available yet"),
        error(500, "structured output failed: response_format is not supported right now"),
        error(429, "response_format: unsupported, too many requests", Retry_After="0"),
        error(408, "json_schema: request failed"),
    ],
)
def test_what_passes_by_itself_switches_no_schema_off(ranker_for, capsys, fault: Reply) -> None:
    with serving(each(fault)) as server:
        assert score(ranker_for(server, concurrency=1), ["a", "bb"]) == [[0.0, 1.0]]
    assert len(server.bodies) == 4
    assert all("response_format" in body for body in server.bodies)
    assert "does not accept a JSON schema" not in capsys.readouterr().out


def test_words_of_schemas_that_refuse_nothing_switch_none_off(ranker_for) -> None:
    words = "Your account sends structured output to a grammar of another project"
    with serving(lambda body: error(400, words)) as server:
        assert words in refusal(ranker_for(server, concurrency=1))
        assert len(server.bodies) == 1


def test_a_verdict_given_without_the_schema_is_kept_as_that(ranker_for, tmp_path: Path) -> None:
    """It is known again where a schema was wanted, and is none of a recipe that wants none."""

    def takes_none(body: dict[str, Any]) -> Reply:
        if "response_format" in body:
            return error(400, "response_format: json_schema is not supported by this model")
        return longer_wins(body)

    with serving(takes_none) as server:
        score(ranker_for(server, concurrency=1), ["a", "bb"])
        refused = set(VerdictLog(tmp_path / "verdicts"))
        server.script = longer_wins
        before = len(server.bodies)
        assert score(ranker_for(server), ["a", "bb"]) == [[0.0, 1.0]]
        assert len(server.bodies) == before, "nothing is asked twice"
        assert score(ranker_for(server), ["a", "bb"], ["c", "ddd"]) == [[0.0, 1.0]] * 2
        assert all("response_format" in body for body in server.bodies[before:])
        before = len(server.bodies)
        score(ranker_for(server, json_schema=False), ["a", "bb"])
        assert len(server.bodies) == before + 2
        with_schema = JudgeRanker(ranker_for(server).ranking, tmp_path / "others")
        score(with_schema, ["a", "bb"])
    assert len(refused) == 2 and not refused & set(with_schema.verdicts)


def test_a_verdict_given_without_a_limit_is_kept_as_that(ranker_for, tmp_path: Path) -> None:
    def takes_none(body: dict[str, Any]) -> Reply:
        for key in ("max_tokens", "max_completion_tokens"):
            if key in body:
                return error(400, f"Unrecognized request argument supplied: {key}")
        return longer_wins(body)

    with serving(takes_none) as server:
        score(ranker_for(server, concurrency=1), ["a", "bb"])
        before = len(server.bodies)
        assert score(ranker_for(server), ["a", "bb"]) == [[0.0, 1.0]]
        assert len(server.bodies) == before
        server.script = longer_wins
        limited = JudgeRanker(ranker_for(server).ranking, tmp_path / "others")
        score(limited, ["a", "bb"])
    assert not set(limited.verdicts) & set(VerdictLog(tmp_path / "verdicts"))


def test_a_server_that_takes_no_limit_at_all_is_asked_without(ranker_for) -> None:
    def script(body: dict[str, Any]) -> Reply:
        for key in ("max_tokens", "max_completion_tokens"):
            if key in body:
                return error(400, f"Unrecognized request argument supplied: {key}")
        return longer_wins(body)

    with serving(script) as server:
        assert (
            score(ranker_for(server, concurrency=4), ["a", "bb"], ["c", "dd"]) == [[0.0, 1.0]] * 2
        )
        assert len(server.bodies) <= 4 * 3


def test_a_server_that_refuses_whatever_it_is_sent_is_left(ranker_for) -> None:
    words = "response_format, max_tokens and max_completion_tokens are not supported"
    with serving(lambda body: error(400, words)) as server:
        assert words in refusal(ranker_for(server, concurrency=1))
        assert len(server.bodies) == 4


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_key_follows_no_redirect(ranker_for, monkeypatch, status: int) -> None:
    monkeypatch.setenv("SOME_KEY", SECRET)
    with serving() as other, serving() as server:
        there = f"{other.url}/chat/completions"
        server.script = lambda body: Reply(status, "", {"Location": there})
        message = refusal(ranker_for(server, api_key_env="SOME_KEY", concurrency=1))
        assert f"see ranking.judge.base_url: this one redirects to {there}" in message
        assert not other.bodies


def test_an_answer_that_repeats_the_key_is_kept_without_it(
    ranker_for, monkeypatch, tmp_path: Path, capsys
) -> None:
    monkeypatch.setenv("SOME_KEY", SECRET)

    def script(body: dict[str, Any]) -> Reply:
        echo = f"{'x' * 990} {SECRET} {SECRET}"
        if "odd" in shown(body):
            return completion(f"{SECRET}?")
        if "long" in shown(body):
            return error(400, f"context length exceeded by {SECRET}")
        return completion(f'{echo} {{"winner": "B"}}')

    with serving(script) as server:
        score(ranker_for(server, api_key_env="SOME_KEY"), ["a", "b"], ["a", "odd"], ["a", "long"])
    [log] = (tmp_path / "verdicts").iterdir()
    written = log.read_text(encoding="utf-8")
    assert "sk-" not in written and "***" in written
    captured = capsys.readouterr()
    assert "sk-" not in captured.out + captured.err


@pytest.mark.parametrize("key", ["A", "winner", '"'])
def test_a_key_of_plain_letters_hides_no_verdict(ranker_for, monkeypatch, key: str) -> None:
    monkeypatch.setenv("SOME_KEY", key)
    with serving() as server:
        assert score(ranker_for(server, api_key_env="SOME_KEY"), ["a", "bb"]) == [[0.0, 1.0]]


def test_what_a_server_says_is_shown_and_does_nothing(ranker_for, capsys) -> None:
    evil = "\x1b[2J\x1b]0;x\x07 \u202e gone\r\n"
    with serving(lambda body: error(418, evil)) as server:
        message = refusal(ranker_for(server, concurrency=1))
        assert "\\x1b[2J\\x1b]0;x\\x07 \\u202e gone" in message and message.isprintable()
        server.script = lambda body: completion(evil)
        score(ranker_for(server), ["a", "bb"])
    said = capsys.readouterr().out
    assert "2 of 2 verdicts are ties, unparsable" in said
    assert said.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "reply",
    [
        completion("[" * 200_000),
        completion('{"winner":' * 20_000),
        completion("[[" * 100_000),
        completion('{"winner": ["A"]}'),
        completion('{"winner": {"winner": 1}}'),
        completion('{"winner": ' + "1" * 5000 + "}"),
        completion('{"winner": NaN}'),
        completion("\x00\ud800"),
        completion(None),
        Reply(200, '{"choices": [{"message": {"content": [{"type": "text", "text": "?"}, 3]}}]}'),
        Reply(200, '{"choices": [{"finish_reason": "content_filter: SAFETY", "index": 0}]}'),
        Reply(200, '{"choices": [{"message": {"content": 3}}], "usage": {"prompt_tokens": 1e999}}'),
    ],
    ids=range(12),
)
def test_an_answer_of_any_kind_is_a_verdict_that_nobody_won(ranker_for, reply: Reply) -> None:
    with serving(lambda body: reply) as server:
        ranker = ranker_for(server)
        started = time.monotonic()
        assert score(ranker, ["a", "bb"]) == [[0.5, 0.5]]
        assert time.monotonic() - started < 5
    assert len(server.bodies) == 2
    assert {v.outcome for v in ranker.verdicts.values()} <= {"unparsable", "refusal"}
    assert len(ranker_for(server).verdicts) == 2, "and is read again"


def test_a_body_of_any_depth_is_no_completion(ranker_for) -> None:
    with serving(each(Reply(200, '{"choices":' * 100_000))) as server:
        assert score(ranker_for(server), ["a", "bb"]) == [[0.0, 1.0]]


def test_parts_of_a_message_are_one_text(ranker_for) -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": '{"winner": "B"}'}]
    reply = json.dumps({"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]})
    with serving(lambda body: Reply(200, reply)) as server:
        assert score(ranker_for(server), ["a", "bb"]) == [[0.5, 0.5]]
    assert len(server.bodies) == 2


def test_texts_of_any_kind_can_be_asked_about(ranker_for) -> None:
    with serving() as server:
        [scores] = score(ranker_for(server), ["", "\ud800", "\x00\x1b[31m"])
    assert scores == [0.0, 0.5, 1.0]
    assert ("", "\ufffd") in {shown(body) for body in server.bodies}


GOOD = {"key": "k", "outcome": "first", "prompt_tokens": 1, "completion_tokens": 1, "answer": "A"}


@pytest.mark.parametrize(
    "line",
    [
        b'{"key": "k", "outc',
        b"\xff\xfe\x00\x00",
        b"\x00" * 50,
        b"[" * 100_000,
        b"null",
        b'"text"',
        b"{}",
        *(
            json.dumps(GOOD | change).encode()
            for change in (
                {"outcome": "nobody"},
                {"outcome": ["first"]},
                {"outcome": None},
                {"prompt_tokens": "1"},
                {"prompt_tokens": -1},
                {"prompt_tokens": True},
                {"completion_tokens": 10**30},
                {"completion_tokens": 1.5},
                {"answer": None},
                {"key": 3},
            )
        ),
        json.dumps(GOOD).encode().replace(b'"prompt_tokens": 1', b'"prompt_tokens": NaN'),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_damaged_verdict_is_asked_again_and_said(
    ranker_for, tmp_path: Path, capsys, line: bytes, end: bytes
) -> None:
    with serving() as server:
        score(ranker_for(server), ["a", "bb"])
        [log] = (tmp_path / "verdicts").iterdir()
        first, _ = log.read_bytes().splitlines(keepends=True)
        log.write_bytes(first + line + end)
        assert len(VerdictLog(tmp_path / "verdicts")) == 1
        assert score(ranker_for(server), ["a", "bb"]) == [[0.0, 1.0]]
        assert len(server.bodies) == 3
    said = capsys.readouterr().out
    assert said.count(f"{log}: 1 line is damaged; the judge is asked again when needed") == 1


def test_a_verdict_with_keys_of_a_later_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "verdicts-1.jsonl").write_text(json.dumps(GOOD | {"new": 1}), encoding="utf-8")
    assert VerdictLog(tmp_path)["k"].outcome == "first"


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_a_template_may_start_with_a_byte_order_mark(ranking_for, mark: str) -> None:
    with serving() as server:
        ranking = ranking_for(server)
        Path(ranking.judge.template).write_text(mark + TEMPLATE, encoding="utf-8")
        score(JudgeRanker(ranking, None), ["a", "bb"])
    assert server.bodies[0]["messages"][0]["content"].startswith("Asked: p0")


def test_a_template_that_is_no_text_is_refused(tiny_recipe: str, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " + TEMPLATE.encode())
    judge = ["ranking.ranker=judge", "ranking.name_or_path=m"]
    with pytest.raises(
        UserError, match=r"judge.template: .*latin.txt cannot be read as text in UT"
    ):
        load_recipe(tiny_recipe, [*judge, f"ranking.judge.template={tmp_path / 'latin.txt'}"])


def test_a_proxy_that_cannot_be_used_is_named(ranker_for, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "://")
    assert "HTTP_PROXY or ALL_PROXY: the proxy" in refusal(ranker_for("http://judge.example/v1"))
