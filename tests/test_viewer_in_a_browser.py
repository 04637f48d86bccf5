"""report.html in a real browser, from the disk and with the network off.

Screenshots of the four views at two widths stay in runs/test-viewer, for people to look at.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import quote

import in_a_browser
import pytest
import viewer_run
from in_a_browser import opened

from selm.viewer.page import STATIC, page
from selm.viewer.several import together

PICTURES = Path(__file__).parents[1] / "runs" / "test-viewer"
VIEWS = ("overview", "answers", "pairs", "training")
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def browser():
    with in_a_browser.started(in_a_browser.find()) as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return viewer_run.page_of(tmp_path_factory.mktemp("report"), viewer_run.results())


def rows(section):
    return section.locator("[role=option] .row-text").all_inner_texts()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_four_views_open_without_a_request_or_an_error(browser, report, width, colours):
    window = opened(browser, report, width=width, color_scheme=colours)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for view in VIEWS:
        section = window.view(view)
        assert section.inner_text().strip()
        assert window.page.evaluate("document.documentElement.scrollWidth") <= width, view
        window.page.screenshot(path=PICTURES / f"{view}-{width}-{colours}.png", full_page=True)
    window.assert_quiet()


def test_the_overview_has_the_papers_numbers_the_lineage_and_the_settings(browser, report):
    section = opened(browser, report).view("overview")
    text = section.inner_text()
    assert "mean held-out reward 0.500 (base)" in text
    assert "paper: SELM-2" in text and "the paper" in text
    for part in ("Lineage", "Settings"):
        section.locator("summary", has_text=part).click()
    text = section.inner_text()
    assert "0123456789ab-dirty" in text and "model ffffffffffff" in text
    assert "learning_rate: 1.0" in text
    assert "1 min 15 s" in text and "1,000" in text


def test_a_mark_says_its_value_and_interval_under_the_pointer_and_with_the_focus(browser, report):
    window = opened(browser, report)
    figure = window.view("overview").locator("#chart-benchmark-alpaca_eval")
    marks, tip = figure.locator(".mark"), figure.locator(".tip")
    marks.nth(0).focus()
    assert tip.inner_text().split("\n")[1:] == [
        "lc_win_rate 20.00",
        "95% interval 18.04 to 21.96",
    ]
    marks.nth(1).hover()
    assert "21.00" in tip.inner_text()
    assert "95% interval" in marks.nth(0).get_attribute("aria-label")


def test_charts_are_saved_as_svg_and_png_with_their_colours(browser, report):
    window = opened(browser, report)
    figure = window.view("overview").locator("#chart-reward")
    files = {}
    for kind in ("SVG", "PNG"):
        with window.page.expect_download() as download:
            figure.get_by_text(f"Save {kind}").click()
        assert download.value.suggested_filename == f"reward.{kind.lower()}"
        files[kind] = Path(download.value.path()).read_bytes()
    dots = ElementTree.fromstring(files["SVG"]).findall(".//{http://www.w3.org/2000/svg}circle")
    assert {"rgb(20, 112, 127)"} == {dot.get("fill") for dot in dots[1::2]}
    assert files["PNG"].startswith(b"\x89PNG") and len(files["PNG"]) > 2000
    window.assert_quiet()


def test_prompts_are_listed_filtered_and_sorted(browser, report):
    section = opened(browser, report).view("answers")
    assert rows(section)[:2] == ["Question number 0?", "Question number 1?"]
    section.get_by_label("against base").select_option("lost")
    assert rows(section) == [f"Question number {i}?" for i in (2, 5, 8, 11)]
    assert section.locator(".count").inner_text() == "4 of 12 prompts"
    section.get_by_label("Text in prompt or answers").fill("number 11")
    section.get_by_text("1 of 12 prompts").wait_for()
    assert rows(section) == ["Question number 11?"]
    section.get_by_label("Text in prompt or answers").fill("")
    section.get_by_label("against base").select_option("")
    section.get_by_text("12 of 12 prompts").wait_for()
    for order, first in (("loss", 2), ("gain", 0), ("longest", 11)):
        section.get_by_label("Order").select_option(order)
        assert rows(section)[0] == f"Question number {first}?", order
    section.get_by_label("Scores of").select_option("1")
    section.get_by_label("Order").select_option("disagreement")
    assert rows(section)[0] == "Question number 0?"


def test_a_link_opens_its_prompt_and_a_wrong_one_says_so(browser, report):
    window = opened(browser, report, f"#prompt-{quote('prompt 7')}")
    section = window.page.locator('[data-view="answers"]')
    assert "Question number 7?" in section.locator(".prompt").inner_text()
    assert section.locator("[aria-selected=true] .row-text").inner_text() == "Question number 7?"
    window.view("prompt-100%")
    assert "no prompt with the id 100%" in section.locator("[role=alert]").inner_text()
    window.assert_quiet()


def test_keys_go_through_the_prompts(browser, report):
    window = opened(browser, report, "#answers")
    section, keyboard = window.page.locator('[data-view="answers"]'), window.page.keyboard

    def shown():
        return section.locator(".detail .prompt").inner_text()

    assert shown() == "Question number 0?"
    for key, number in (("j", 1), ("ArrowDown", 2), ("k", 1), ("ArrowUp", 0), ("k", 0)):
        keyboard.press(key)
        assert shown() == f"Question number {number}?", key
    assert window.page.evaluate("location.hash") == f"#prompt-{quote('prompt 0')}"
    keyboard.press("ArrowLeft")
    assert section.get_by_label("with").input_value() == "1"
    keyboard.press("/")
    keyboard.type("number 3?")
    section.get_by_text("1 of 12 prompts").wait_for()
    assert rows(section) == ["Question number 3?"]


def test_answers_stand_side_by_side_with_scores_and_verdicts(browser, report):
    section = opened(browser, report, "#answers").page.locator('[data-view="answers"]')
    columns = section.locator(".detail article")
    assert columns.count() == 3
    first = columns.nth(1).inner_text()
    assert "▲ won +0.500" in first and "reward 1.000" in first and "10 tokens" in first
    assert "▲ won shown first, by a judge" in first and "▼ lost shown second" in first
    section.locator("[role=option]").nth(1).click()
    assert "cut at the limit" in columns.nth(0).inner_text()


@pytest.mark.parametrize("kind", viewer_run.HOSTILE)
def test_any_text_shows_as_text(browser, tmp_path, kind):
    evil = viewer_run.HOSTILE[kind]
    found = viewer_run.results(prompts=3, answer=lambda i, t: evil if t else "plain")
    for of in found.evaluations.values():
        of[0]["prompt"] = [{"role": "user", "content": evil}]
        of[0]["prompt_id"] = evil[:300]
    found.preferences[1][0] |= {"explored": evil, "prompt": of[0]["prompt"], "prompt_id": evil[:99]}
    window = opened(browser, viewer_run.page_of(tmp_path, found), "#answers")
    section = window.page.locator('[data-view="answers"]')
    shown = {
        "nul": "before␀after␛[31m",
        "override": "safe[U+202E]txt.exe",
        "lone": "half \ufffd of a pair",
        "empty": "(empty)",
    }.get(kind, evil)
    answer = section.locator(".detail article").nth(1).locator(".foreign")
    assert answer.text_content() == shown
    assert answer.get_attribute("dir") == "auto"
    if kind == "right-to-left":
        assert answer.evaluate("node => getComputedStyle(node).direction") == "rtl"
    window.view("pairs")
    assert window.page.locator("main").locator("img, b, iframe").count() == 0
    assert window.page.title() == "by-hand"
    window.assert_quiet()


def test_differences_are_marked_word_by_word(browser, report):
    section = opened(browser, report, "#answers").page.locator('[data-view="answers"]')
    columns = section.locator(".detail article")
    assert columns.nth(0).locator("del").count() and columns.nth(2).locator("ins").count()
    assert columns.nth(1).locator("ins, del").count() == 0
    section.get_by_label("with").select_option("1")
    assert columns.nth(1).locator("ins").count() and not columns.nth(2).locator("ins").count()


@pytest.fixture(scope="module")
def difference(browser):
    """The function `diff` of diff.js alone, in an empty page."""
    page = browser.new_page()
    source = (STATIC / "diff.js").read_text(encoding="utf-8")
    script = "([s, a, b]) => import(`data:text/javascript,${encodeURIComponent(s)}`)"
    return lambda a, b: page.evaluate(f"{script}.then((m) => m.diff(a, b))", [source, a, b])


def test_a_difference_is_the_least_one_and_loses_nothing(difference):
    found = difference("the cat sat on a mat", "the dog sat on the mat")
    alone = [[text for text, shared in found[side] if not shared] for side in ("left", "right")]
    assert alone == [["cat", "a"], ["dog", "the"]]
    assert difference("猫が好き", "犬が好き")["left"][0] == ["猫", False]
    for seed in range(30):
        a, b = viewer_run.sentence(seed, seed), viewer_run.sentence(seed + 1, 2 * seed)
        found = difference(a, b)
        sides = {side: "".join(text for text, _ in found[side]) for side in ("left", "right")}
        assert (sides["left"], sides["right"]) == (a, b)
        shared = [
            "".join("".join(text for text, same in found[side] if same).split())
            for side in ("left", "right")
        ]
        assert shared[0] == shared[1]


def test_texts_with_little_in_common_are_marked_as_a_whole(difference):
    a, b = ("start " + " ".join(f"{c}{i}" for i in range(3000)) for c in "ab")
    found = difference(a, b)
    assert not found["complete"]
    assert found["left"][0] == ["start ", True] and not found["left"][1][1]


def test_pairs_show_writers_scores_and_dropped_rows(browser, report):
    window = opened(browser, report)
    section = window.view("pairs")
    columns = section.locator(".detail article")
    assert [c.split("\n")[0] for c in columns.all_inner_texts()] == [
        "chosen",
        "rejected",
        "explored",
    ]
    assert "dataset's chosen" in columns.nth(0).inner_text()
    assert "score 0.900" in columns.nth(0).inner_text()
    assert "the policy" in columns.nth(2).inner_text()
    section.get_by_text("1 row: tie (rank)").click()
    assert "own 4" in section.locator(".dropped").inner_text()
    section.get_by_label("Explored answer was").select_option("chosen")
    assert section.locator(".count").inner_text() == "0 of 3 pairs"


def test_training_curves_zoom_together(browser, report):
    window = opened(browser, report)
    section = window.view("training")
    said = section.locator("[role=status]")
    assert said.inner_text() == "Steps 1 to 40"
    picture = section.locator("svg.curves").first
    assert "iteration 2" in picture.text_content()
    picture.focus()
    window.page.keyboard.press("ArrowRight")
    assert "step 1, iteration 1" in section.locator(".tip").first.inner_text()
    window.page.keyboard.press("+")
    assert said.inner_text() == "Steps 1 to 20"
    box = section.locator("svg.curves").nth(1).bounding_box()
    window.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 80)
    window.page.mouse.down()
    window.page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 80, steps=3)
    window.page.mouse.up()
    first, last = map(int, said.inner_text().removeprefix("Steps ").split(" to "))
    assert 8 <= first < last <= 16
    section.get_by_role("button", name="All steps").click()
    assert said.inner_text() == "Steps 1 to 40"
    window.assert_quiet()


# Texts whose contrast with what is behind them is below 4.5 to 1 (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const channel = (c) => c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (node) => {
    for (let at = node; at !== null; at = at.parentElement) {
      const found = parse(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const ratio = (node) => {
    const style = getComputedStyle(node);
    const ink = parse(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [dark, bright] = [light(ink), light(ground(node))].sort((x, y) => x - y);
    return (bright + 0.05) / (dark + 0.05);
  };
  const hasText = (node) => [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll("body *")]
    .filter((node) => hasText(node) && node.checkVisibility())
    .filter((node) => !node.closest("script, noscript, .unseen, [disabled]") && ratio(node) < 4.5)
    .map((node) => `${node.tagName} ${ratio(node).toFixed(2)}: ${node.textContent.slice(0, 40)}`);
}"""

UNNAMED = """() => {
  const controls = "button, select, input, a, [role=listbox], [role=region], svg[role]";
  return [...document.querySelectorAll(controls)]
    .filter((n) => n.checkVisibility())
    .filter((n) => !(n.ariaLabel || n.textContent.trim() || n.labels?.length))
    .map((n) => n.outerHTML.slice(0, 120));
}"""


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_text_can_be_read_and_every_control_has_a_name(browser, report, colours):
    window = opened(browser, report, color_scheme=colours)
    for view in VIEWS:
        window.view(view)
        assert window.page.evaluate(CONTRAST) == [], view
        assert window.page.evaluate(UNNAMED) == [], view
    window.page.get_by_label("Colours").select_option("dark" if colours == "light" else "light")
    assert window.page.evaluate(CONTRAST) == []


def test_it_prints_without_its_controls(browser, report):
    window = opened(browser, report, "#answers")
    window.page.emulate_media(media="print")
    assert not window.page.locator('[data-view="answers"] .controls').is_visible()
    assert window.page.locator(".detail article").first.is_visible()
    assert len(window.page.pdf()) > 5000


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """2,000 prompts with the answers of five policies, 250 words each."""
    kept: dict[int, str] = {}

    def answer(i: int, t: int) -> str:
        return kept.setdefault(5 * i + t, viewer_run.sentence(5 * i + t, 250))

    found = viewer_run.results(prompts=2000, iterations=4, answer=answer)
    return viewer_run.page_of(tmp_path_factory.mktemp("large"), found)


def test_a_large_run_is_small_and_quick(browser, large):
    assert large.stat().st_size < 15_000_000
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = context.new_page()
    session = context.new_cdp_session(page)
    # Seconds of the page's own thread: unlike a clock's they are the same on a busy machine.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds() -> float:
        found = session.send("Performance.getMetrics")["metrics"]
        return next(each["value"] for each in found if each["name"] == "TaskDuration")

    page.goto(f"{large.as_uri()}#answers")
    page.locator("[role=option]").first.wait_for()
    opened_in = seconds()
    assert opened_in < 2
    assert page.locator("[role=option]").count() < 40  # of 2,000: those that are seen
    search = page.get_by_label("Text in prompt or answers").first
    search.fill("number 1999")
    page.get_by_text("1 of 2,000 prompts").wait_for()
    first_search = seconds() - opened_in
    search.fill("number 199")
    page.get_by_text("11 of 2,000 prompts").wait_for()
    assert seconds() - opened_in - first_search < 0.3
    page.locator("[data-view=answers] .list").evaluate("node => { node.scrollTop = 1e6 }")
    context.close()


def test_what_does_not_fit_is_named_on_the_first_view(browser, tmp_path):
    found = viewer_run.results(prompts=60)
    window = opened(browser, viewer_run.page_of(tmp_path, found, most_bytes=9000))
    text = window.view("overview").locator(".left-out").inner_text()
    assert "of 60 held-out prompts" in text
    assert 0 < len(rows(window.view("answers"))) < 60
    window.assert_quiet()


def test_a_page_of_several_runs_opens(browser, tmp_path):
    one = viewer_run.content_of(tmp_path, viewer_run.results())
    other = {**one, "title": "other"}
    other["policies"] = [policy | {"run": "other"} for policy in one["policies"]]
    other["pairs"] = [each | {"run": "other"} for each in one["pairs"]]
    path = tmp_path / "compare.html"
    path.write_text(page(together([one, other], "two runs", ["A line."])), encoding="utf-8")
    window = opened(browser, path)
    heads = window.view("answers").locator(".detail h4").all_inner_texts()
    assert heads[0] == "base" and heads[-1] == "other, iteration 2" and len(heads) == 5
    options = window.view("pairs").get_by_label("Iteration").locator("option").all_inner_texts()
    assert options[-1] == "other, iteration 2"
    assert window.view("training").locator("figure").count() == 2 * len(one["training"])
    window.assert_quiet()
