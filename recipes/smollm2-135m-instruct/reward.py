"""The reward of the embedded task, and the example to copy when you write your own.

A ranker of kind `function` is one Python function in one file. The recipe names it:

    ranking: {ranker: function, name_or_path: recipes/smollm2-135m-instruct/reward.py:reward}

and it is called once per prompt:

    def reward(prompt: list[dict], candidates: list[str], **columns) -> list[float]

    prompt      the chat so far, as messages: [{"role": "user", "content": "..."}]
    candidates  the answers to compare, as plain text
    columns     whatever else the row holds; accept it with ** and take what you need
    returns     one score per candidate, in their order; higher is better

The function should be deterministic: the same row must get the same scores when a run is
resumed. Your file may import anything that is installed; this one needs only the standard library.

What is scored here: a prompt asks something about a topic, briefly, under one constraint that a
program can check ("What is interesting about snow? Answer in a sentence or two. Write without
commas.").

    score = quality * (BASE + (1 - BASE) * constraint)          all three in [0, 1]

`constraint` is 1 when met and at most NEAR for a near miss, so that two failures seldom tie and
a better failure still wins. `quality` is a product, so one bad property is enough to sink an
answer: empty, off topic, a fragment, repetitive, parroting the prompt, talking about the task
instead of doing it, word salad, cut in mid-sentence. It cannot tell whether an answer is *true*;
no check of form can.

`KINDS` is the single definition of every constraint: `make_data.py` writes prompts from its
phrasings and `parse` reads them back with the same strings.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

BASE = 0.2  # what a good answer that ignores the constraint keeps
NEAR = 0.6  # the most that a near miss of a constraint can get

BREVITY = "Answer in a sentence or two. "

QUESTIONS = (
    "Tell me about {}.",
    "Describe {} to a child.",
    "What is interesting about {}?",
    "Why do people care about {}?",
    "Give me one fact about {}.",
    "What is one good thing about {}?",
)


# --- text ---------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """The words, in lower case: `words("It's 3 Bees!") == ["it's", "3", "bees"]`."""
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower().replace("\u2019", "'"))


def sentences(text: str) -> list[str]:
    """Sentences with their marks: `sentences("Go! Is it? Yes.") == ["Go!", "Is it?", "Yes."]`."""
    parts = re.split(r"(?<=[.!?])[\"'\u201d)]*\s+|\n+", text.strip())
    return [part for part in parts if words(part)]


def ngrams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def ramp(x: float, zero: float, one: float) -> float:
    """0 at `zero`, 1 at `one`, a straight line between; `zero > one` gives a falling ramp."""
    return min(1.0, max(0.0, (x - zero) / (one - zero)))


FUNCTION_WORDS = frozenset(
    words(
        """a about after all also an and any are as at be because been before but by can could do
        does during each even for from had has have he her him his how i if in into is it its
        itself just like many may more most much my no not of often on one only or other our out
        over she should so some such than that the their them themselves then there these they
        this those through to up us very was we well were what when where which while who why
        will with without would you your it's they're that's don't isn't can't"""
    )
)
COLORS = frozenset(words("black blue brown gray green grey orange pink purple red white yellow"))
META = frozenset(words("sentence sentences phrase comma commas ai assistant chatbot smollm sorry"))
ARTICLES = frozenset({"a", "an", "the"})
CONNECTORS = frozenset(words("a an the of and or but with from is are"))
NOT_AFTER_ARTICLE = frozenset(
    words(
        """a an the of and or but is are was were be to in on at by for from with that which it
        they this can has have"""
    )
)


# --- constraints: (answer, *arguments) -> 1 if met, at most NEAR if not -------------------------


def at_most_words(text: str, limit: str) -> float:
    count, most = len(words(text)), int(limit)
    return 1.0 if count <= most else NEAR * ramp(count, 2 * most, most)


def three_items(text: str) -> float:
    """A numbered or a dashed list; an introduction or a closing line costs a little."""
    lines = [line for line in text.splitlines() if line.strip()]
    items = [line for line in lines if is_item(line) and len(words(line)) >= 3]
    if not items:
        return 0.0
    if len(items) == 3:
        return 1.0 if len(lines) == 3 else 0.8
    return NEAR * ramp(abs(len(items) - 3), 4, 0)


def is_item(line: str) -> bool:
    return re.match(r"\s*([-*\u2022]|\d[.)])\s", line) is not None


def no_commas(text: str) -> float:
    return fewer_is_better(text.count(","))


def avoids(text: str, word: str) -> float:
    return fewer_is_better(words(text).count(word.lower()))


def fewer_is_better(count: int) -> float:
    """0 -> 1, 1 -> NEAR / 2, 2 -> NEAR / 3, ..."""
    return 1.0 if count == 0 else NEAR / (1 + count)


def exactly_sentences(text: str, number: str) -> float:
    off = abs(len(sentences(text)) - {"one": 1, "two": 2, "three": 3}[number])
    return fewer_is_better(off)


def between_words(text: str, low: str, high: str) -> float:
    count = len(words(text))
    off = max(int(low) - count, count - int(high), 0)
    return 1.0 if off == 0 else NEAR * ramp(off, int(low), 0)


def short_words(text: str, limit: str) -> float:
    said = words(text)
    long_share = sum(len(word) > int(limit) for word in said) / max(1, len(said))
    return 1.0 if long_share == 0 else NEAR * ramp(long_share, 0.3, 0)


def names_color(text: str) -> float:
    return 1.0 if COLORS & set(words(text)) else 0.0


def includes(text: str, *wanted: str) -> float:
    """Words or phrases; `includes("Many people bake.", "people", "world") == NEAR / 2`."""
    said = " " + " ".join(words(text)) + " "
    share = sum(f" {' '.join(words(phrase))} " in said for phrase in wanted) / len(wanted)
    return 1.0 if share == 1 else NEAR * share


def starts_with(text: str, word: str) -> float:
    said = words(text)
    if word.lower() not in said:
        return 0.0
    place = said.index(word.lower())
    return 1.0 if place == 0 else NEAR * ramp(place, 8, 0)


class Kind(NamedTuple):
    """One kind of constraint. `{}` in a phrasing is where an argument stands."""

    name: str
    phrasings: tuple[str, ...]
    arguments: tuple[tuple[str, ...], ...]  # the ones used in the data; any others parse as well
    check: Callable[..., float]
    brevity: str = BREVITY  # empty where the constraint itself sets the length


NONE: tuple[tuple[str, ...], ...] = ((),)

KINDS = (
    Kind(
        "at_most_words",
        ("Use at most {} words.", "Answer in no more than {} words."),
        (("15",), ("20",), ("25",)),
        at_most_words,
    ),
    Kind(
        "between_words",
        ("Use between {} and {} words.", "Write {} to {} words."),
        (("15", "20"), ("20", "30"), ("25", "35")),
        between_words,
    ),
    Kind(
        "one_sentence",
        ("Write exactly {} sentence.", "Answer in {} sentence only."),
        (("one",),),
        exactly_sentences,
        brevity="",
    ),
    Kind(
        "more_sentences",
        ("Write exactly {} sentences.", "Answer in {} sentences."),
        (("two",), ("three",)),
        exactly_sentences,
        brevity="",
    ),
    Kind(
        "three_items",
        (
            "Write a numbered list of exactly three short items.",
            "Answer with exactly three short bullet points.",
        ),
        NONE,
        three_items,
        brevity="",
    ),
    Kind("no_commas", ("Do not use any commas.", "Write without commas."), NONE, no_commas),
    Kind(
        "avoids",
        ('Do not use the word "{}".', 'Avoid the word "{}".'),
        (("the",), ("and",), ("is",), ("they",)),
        avoids,
    ),
    Kind(
        "short_words",
        (
            "Use only short words, none longer than {} letters.",
            "Use no word of more than {} letters.",
        ),
        (("8",), ("9",)),
        short_words,
    ),
    Kind("names_color", ("Mention a color.", "Name at least one color."), NONE, names_color),
    Kind(
        "includes_phrase",
        ('Use the phrase "{}".', 'Include the words "{}" somewhere.'),
        (("such as",), ("for example",), ("known for",), ("more than",)),
        includes,
    ),
    Kind(
        "includes_two",
        ('Use both "{}" and "{}".', 'Use the two words "{}" and "{}".'),
        (("people", "world"), ("many", "different"), ("can", "time"), ("most", "life")),
        includes,
    ),
    Kind(
        "starts_with",
        ('Start with the word "{}".', 'Let your first word be "{}".'),
        (("Imagine",), ("Many",), ("People",), ("Yes",)),
        starts_with,
    ),
)


# --- reading the prompt -------------------------------------------------------------------------


class Request(NamedTuple):
    """What a prompt asks for; `kind` is None when no known phrasing occurs in it."""

    text: str
    topic: list[str]
    kind: Kind | None
    arguments: tuple[str, ...]


def parse(text: str) -> Request:
    """Topic and constraint of a prompt.

    >>> request = parse("Tell me about honey bees. Answer briefly. Use at most 15 words.")
    >>> request.topic, request.kind.name, request.arguments
    (['honey', 'bees'], 'at_most_words', ('15',))
    """
    for kind in KINDS:
        for phrasing in kind.phrasings:
            if found := re.search(as_pattern(phrasing), text):
                return Request(text, topic_words(text[: found.start()]), kind, found.groups())
    return Request(text, topic_words(text), None, ())


def as_pattern(phrasing: str) -> str:
    """`as_pattern("at most {} words.")` matches "at most 15 words." and captures "15"."""
    return "(.+?)".join(re.escape(part) for part in phrasing.split("{}"))


def topic_words(question: str) -> list[str]:
    """What the question is about; for a question of unknown form, all its content words."""
    found = (re.search(as_pattern(form), question) for form in QUESTIONS)
    topic = next((match.group(1) for match in found if match), question)
    return [word for word in words(topic) if word not in FUNCTION_WORDS]


# --- quality: each factor in [0, 1], 1 for an ordinary short answer -----------------------------


def quality(text: str, request: Request) -> float:
    said = words(text)
    if not said:
        return 0.0
    return (
        length_quality(len(said))
        * topic_quality(said, request.topic)
        * variety(text)
        * originality(said, request.text)
        * (0.5 if META & set(said) else 1.0)
        * english(text)
        * (1.0 if is_finished(text) else 0.25)
    )


def length_quality(count: int) -> float:
    """Fragments and essays score low, all between alike: 4 -> 0.01, 8 -> 0.31, 12..40 -> 1."""
    return ramp(count, 3, 12) ** 2 * ramp(count, 100, 40)


def topic_quality(said: list[str], topic: list[str]) -> float:
    """Is the topic named? "honeybee" names ["honey", "bees"]; "bees" alone is worth 0.7."""
    if not topic or is_named("".join(topic), said):
        return 1.0
    share = sum(is_named(word, said) for word in topic) / len(topic)
    return 0.2 if share == 0 else 0.4 + 0.6 * share


def is_named(topic: str, said: list[str]) -> bool:
    """`is_named("stars", ["star-like"])`, but not `is_named("stars", ["start"])`."""
    form = re.compile(re.escape(stem(topic)) + r"(|e|y|s|es|ies|ed|er|ers|ing)(['-].*)?")
    return any(form.fullmatch(word) for word in said)


def stem(word: str) -> str:
    """`stem("volcanoes") == "volcano"`, `stem("bees") == "bee"`, `stem("dancing") == "danc"`."""
    for ending in ("ing", "ies", "es", "s"):
        if word.endswith(ending) and not word.endswith("ss") and len(word) > len(ending) + 2:
            return word[: -len(ending)]
    return word


def variety(text: str) -> float:
    """Distinct words, distinct word pairs and triples, and no sentence said twice."""
    said = words(text)
    lines = [tuple(words(s)) for s in sentences(text)]
    if len(set(lines)) < len(lines):
        return 0.2
    pairs, triples = ngrams(said, 2), ngrams(said, 3)
    distinct_words = len(set(said)) / len(said)
    distinct_pairs = len(set(pairs)) / max(1, len(pairs))
    distinct_triples = len(set(triples)) / max(1, len(triples))
    return ramp(distinct_words, 0.2, 0.75) * ramp(distinct_pairs, 0.5, 0.95) * distinct_triples**2


def originality(said: list[str], prompt: str) -> float:
    """1 if at most a fifth of the word triples stand in the prompt, 0 if more than half do."""
    given = set(ngrams(words(prompt), 3))
    copied = [triple in given for triple in ngrams(said, 3)]
    return ramp(sum(copied) / max(1, len(copied)), 0.5, 0.2)


def english(text: str) -> float:
    """Against word salad: the share of function words, and articles that lead nowhere."""
    said = words(text)
    share = sum(word in FUNCTION_WORDS for word in said) / len(said)
    tokens = re.findall(r"[\w'-]+|[.,!?;:]", text.lower())
    dangling = sum(
        left in ARTICLES and (right in NOT_AFTER_ARTICLE or not right[0].isalnum())
        for left, right in ngrams(tokens, 2)
    )
    return ramp(share, 0.08, 0.25) * ramp(share, 0.85, 0.7) * 0.4**dangling


def is_finished(text: str) -> bool:
    """Ends with a closing mark; list items may go without one if none of them has one."""
    lines = [line.strip().rstrip("\"'\u201d)*") for line in text.splitlines() if line.strip()]
    closed = [line.endswith((".", "!", "?")) for line in lines]
    if (words(lines[-1]) or ["the"])[-1] in CONNECTORS:
        return False
    if closed[-1]:
        return True
    items = [done for line, done in zip(lines, closed, strict=True) if is_item(line)]
    return is_item(lines[-1]) and len(items) > 1 and not any(items)


# --- the ranker ---------------------------------------------------------------------------------


def score(text: str, request: Request) -> float:
    """The score of one answer, in [0, 1]."""
    if not words(text):
        return 0.0
    met = request.kind.check(text, *request.arguments) if request.kind else 1.0
    return round(quality(text, request) * (BASE + (1 - BASE) * met), 6)


def reward(prompt: list[dict], candidates: list[str], **columns: object) -> list[float]:
    """One score in [0, 1] per candidate; the constraint is read from the last user message."""
    asked = [message["content"] for message in prompt if message["role"] == "user"]
    request = parse(asked[-1])
    return [score(text, request) for text in candidates]
