"""What report.html holds, and how it is packed. The page itself: test_viewer_in_a_browser.py."""

import base64
import gzip
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import viewer_run

from selm.ranking.base import Candidate, Pool
from selm.ranking.judge import JudgeRanker
from selm.ranking.kinds import said_of
from selm.ranking.verdicts import Verdict
from selm.recipe.schema import Ranking
from selm.viewer import answers, limits
from selm.viewer.page import MODULES, STATIC, bundle, packed, page
from selm.viewer.several import together

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def content(tmp_path: Path):
    return viewer_run.content_of(tmp_path, viewer_run.results())


def unpacked(text: str, part: str):
    found = re.search(rf'<script type="application/octet-stream" id="{part}">([^<]*)<', text)
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_the_page_holds_all_of_its_content(content):
    text = page(content)
    overview = unpacked(text, "data-overview")
    assert overview | {
        "answers": unpacked(text, "data-answers"),
        "pairs": unpacked(text, "data-pairs"),
    } == json.loads(json.dumps(content))


def test_answers_are_joined_by_prompt_and_have_the_base_of_their_own_comparison(tmp_path):
    found = viewer_run.results(prompts=3, iterations=2)
    found.evaluations[2] = found.evaluations[2][::-1][:2]  # another order, and one less
    made = viewer_run.content_of(tmp_path, found)["answers"]
    assert made["columns"] == ["0", "1", "2"]
    assert [prompt["id"] for prompt in made["prompts"]] == ["prompt 0", "prompt 1", "prompt 2"]
    assert made["prompts"][0]["answers"][2] is None
    last = made["prompts"][2]["answers"][2]
    assert (last["reward"], last["base"], last["tokens"], last["cut"]) == (0.25, 0.5, 12, False)
    assert made["prompts"][1]["answers"][1]["cut"]


def test_verdicts_are_told_from_the_side_of_the_policy(content):
    said = content["answers"]["prompts"][0]["answers"][1]["said"]
    assert [(one["shown"], one["outcome"]) for one in said] == [
        ("first", "won"),
        ("second", "lost"),
    ]


def test_verdicts_of_a_benchmark_that_compares_iterations_are_beside_the_answers(tmp_path):
    details = json.dumps({"shown_first": "other", "said": "B"})
    rows = [
        {"prompt_id": "prompt 2", "part": "0", "score": 0.75, "details": details},
        {"prompt_id": "prompt 2", "part": "1", "score": 0.25, "details": details},
    ]
    found = replace(viewer_run.results(), benchmark_rows={"pairwise": {2: rows}})
    made = viewer_run.content_of(tmp_path, found)["answers"]["prompts"]
    assert made[2]["answers"][2]["said"] == [
        {"who": "a judge, in pairwise", "shown": "second", "outcome": "won", "text": "B"}
    ]
    assert made[2]["answers"][1]["said"] == []


def test_a_judges_kept_words_are_read_without_asking(tmp_path):
    template = tmp_path / "judge.txt"
    template.write_text("{prompt} {response_a} {response_b}", encoding="utf-8")
    ranking = Ranking(ranker="judge", name_or_path="m", judge={"template": str(template)})
    pool = Pool(
        "p", [{"role": "user", "content": "q"}], [Candidate("x", "policy"), Candidate("y", "base")]
    )
    judge = JudgeRanker(ranking, tmp_path / "verdicts")
    questions = judge._questions(pool)
    judge.verdicts.add(judge._key(questions[0, 1], frozenset()), Verdict("second", 1, 1, "B is"))
    said = said_of(ranking, [pool], tmp_path / "verdicts")
    assert [(one.first_shown, one.winner, one.text) for one in said[0]] == [(0, 1, "B is")]


def test_pairs_say_who_wrote_each_text_and_its_score(content):
    first = content["pairs"][0]["rows"][0]
    assert (first["chosen"]["by"], first["chosen"]["score"]) == ("dataset's chosen", 0.9)
    assert (first["explored"]["by"], first["explored"]["role"]) == ("the policy", "neither")
    assert first["explored"]["cut"] and not first["chosen"]["cut"]


def test_dropped_rows_have_their_reason_and_an_example(content):
    dropped = {each["reason"]: each for each in content["pairs"][0]["dropped"]}
    assert [example["id"] for example in dropped["identical_candidates"]["examples"]] == ["train 3"]
    assert [example["id"] for example in dropped["tie"]["examples"]] == ["train 4"]
    assert dropped["tie"]["examples"][0]["texts"][2] == {"text": "own 4", "by": "the policy"}


def test_with_two_reasons_that_rows_do_not_tell_only_the_manifests_first_is_shown(tmp_path):
    found = viewer_run.results()
    manifest = found.manifests["preferences", 1]
    manifest["dropped"] = {"tie": 1, "margin_too_small": 1}
    manifest["dropped_first"] = {"tie": "prompt train 4, 'Task 4'"}
    made = viewer_run.content_of(tmp_path, found)["pairs"][0]["dropped"]
    examples = {each["reason"]: [one["id"] for one in each["examples"]] for each in made}
    assert examples == {"tie": ["train 4"], "margin_too_small": []}


def test_the_papers_numbers_stand_beside_ours(content):
    chart = next(each for each in content["charts"] if each["id"] == "benchmark-alpaca_eval")
    ours, theirs = chart["series"]
    assert ours["values"] == [20.0, 21.0, 22.0]
    assert ours["low"][0] == pytest.approx(20 - 1.96)
    assert theirs["values"] == [8.0, None, 24.0] and theirs["dashed"]
    table = next(each for each in content["tables"] if each["id"] == "chat")
    assert any(row[0] == "paper: SELM-2" for row in table["rows"])


def test_numbers_that_are_none_become_null():
    found = viewer_run.results()
    found.evaluations[1][0]["reward"] = float("inf")
    made = answers.of_run(found)
    assert made["prompts"][0]["answers"][1]["reward"] is None
    assert packed(made)


@pytest.mark.parametrize("kind", viewer_run.HOSTILE)
def test_no_text_of_others_is_in_the_file_as_it_is(tmp_path, kind):
    evil = viewer_run.HOSTILE[kind]
    found = viewer_run.results(answer=lambda i, t: evil)
    found.evaluations[0][0]["prompt"] = [{"role": "user", "content": evil}]
    text = page(viewer_run.content_of(tmp_path, found) | {"title": evil[:200]})
    # The title is the one foreign text outside the packed data, and the recipe's grammar for names
    # allows none of these.
    assert text.count("<img") == 0 and text.count("<b>") == 0
    assert text.count("<script") == text.count("</script>") == 4
    answer = unpacked(text, "data-answers")["prompts"][3]["answers"][1]["text"]
    assert answer == evil


def test_what_is_too_much_is_left_out_and_named(content):
    whole = len(packed(content["answers"])) + len(packed(content["pairs"]))
    kept, _ = limits.fit(content, packed, 2_000_000)
    assert kept["answers"] == content["answers"] and kept["left_out"] == []
    other = len(packed({k: v for k, v in content.items() if k not in ("answers", "pairs")}))
    less, parts = limits.fit(content, packed, other + whole // 2)
    assert len(parts["answers"]) <= whole // 2
    assert less["pairs"][0]["rows"] == []
    count = len(less["answers"]["prompts"])
    assert 0 < count < 12
    assert f"This page has {count} of 12 held-out prompts" in less["left_out"][0]


def test_a_text_beyond_the_limit_says_how_much_is_missing():
    text = answers.shortened("x" * (answers.MOST_CHARACTERS + 7))
    assert text.endswith("[... 7 characters are left out ...]")


def test_equal_content_gives_equal_pages(content):
    assert page(content) == page(content)


def test_modules_become_one_script_without_imports_and_with_unique_names():
    text = bundle()
    assert not re.search(r"^(import|export) ", text, re.MULTILINE)
    assert "</script" not in text and "<!--" not in text
    names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", text, re.MULTILINE)
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)
    assert {f"{name}.js" for name in MODULES} == {path.name for path in STATIC.glob("*.js")}


def test_a_module_stands_behind_those_that_it_imports():
    for n, name in enumerate(MODULES):
        imports = re.findall(
            r'from "\./([\w-]+)\.js"', (STATIC / f"{name}.js").read_text(encoding="utf-8")
        )
        assert set(imports) <= set(MODULES[:n]), name


def test_scripts_never_make_markup_of_text():
    """Sinks that would; a text node, `textContent` and attributes by name are what is used."""
    for path in STATIC.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        for sink in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "write(",
            "eval(",
            "Function(",
        ):
            assert sink not in text, (path, sink)
        assert not re.search(r"fetch\(|XMLHttpRequest|https?://(?!www\.w3\.org)", text), path
        assert len(text.splitlines()) < 400, path


def test_view_names_the_page_where_there_is_no_screen(tmp_path):
    (tmp_path / "report").mkdir()
    page_path = tmp_path / "report" / "report.html"
    script = [sys.executable, str(REPOSITORY / "scripts" / "view.py"), str(tmp_path)]
    missing = subprocess.run(script, capture_output=True, text=True, env={}, check=False)
    assert missing.returncode == 2 and "there is no report.html" in missing.stderr
    page_path.touch()
    done = subprocess.run(script, capture_output=True, text=True, env={}, check=True)
    assert done.stdout.strip() == str(page_path)


def test_several_runs_stand_side_by_side_over_one_base_model(content):
    other = {**content, "title": "other"}
    other["policies"] = [policy | {"run": "other"} for policy in content["policies"]]
    made = together([content, other], "two runs", ["A line."])
    names = ["by-hand/0", "by-hand/1", "by-hand/2", "other/1", "other/2"]
    assert made["answers"]["columns"] == names
    assert [policy["id"] for policy in made["policies"]] == names
    assert made["policies"][3]["label"] == "other, iteration 1"
    assert made["answers"]["baselines"] == [0]
    assert [len(prompt["answers"]) for prompt in made["answers"]["prompts"]] == [5] * 12
    assert len({chart["id"] for chart in made["charts"]}) == len(made["charts"])
    assert made.keys() == content.keys()


def test_a_prompt_that_one_run_lacks_has_no_answer_there(content):
    less = {**content["answers"], "prompts": content["answers"]["prompts"][1:]}
    less["prompts"] = [
        prompt | {"answers": [one and one | {"text": "new"} for one in prompt["answers"]]}
        for prompt in less["prompts"]
    ]
    made = together([{**content, "answers": less}, content], "two", [])["answers"]
    assert made["baselines"] == [0, 3]  # their base models answered otherwise
    last = made["prompts"][-1]
    assert last["id"] == "prompt 0" and last["answers"][:3] == [None] * 3
    assert last["answers"][3]["text"] == content["answers"]["prompts"][0]["answers"][0]["text"]
