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
program can check ("What is interesting about snow? Keep it short. Do not use any commas.").

    score = quality * (BASE + (1 - BASE) * constraint)          all three in [0, 1]

`constraint` is 1 when met and at most NEAR for a near miss, so that two failures seldom tie and
a better failure still wins. `quality` is a product, so one bad property is enough to sink an
answer: empty, off topic, a fragment, repetitive, parroting the prompt, word salad, cut in
mid-sentence. It cannot tell whether an answer is *true*; no check of form can.

`KINDS` is the single definition of every constraint: `make_data.py` writes prompts from its
phrasings and `parse` reads them back with the same strings.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

BASE = 0.2  # what a good answer that ignores the constraint keeps
NEAR = 0.6  # the most that a near miss of a constraint can get

BREVITY = "Keep it short."

QUESTIONS = (
    "Tell me about {}.",
    "Describe {} to a child.",
    "What is interesting about {}?",
    "Why do people care about {}?",
    "Give me one fact about {}.",
    "What is one good thing about {}?",
)

FUNCTION_WORDS = frozenset(
    """a about after all also an and any are as at be because been before but by can could do does
    during each even for from had has have he her him his how i if in into is it its itself just
    like many may more most much my no not of often on one only or other our out over she should so
    some such than that the their them themselves then there these they this those through to up
    us very was we well were what when where which while who why will with without would you your
    it's they're that's don't isn't can't""".split()
)
ARTICLES = frozenset({"a", "an", "the"})
NOT_AFTER_ARTICLE = frozenset(
    "a an the of and or but is are was were be to in on at by for from with that which it they "
    "this can has have".split()
)


# --- text ---------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """The words, in lower case: `words("It's 3 Bees!") == ["it's", "3", "bees"]`."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower().replace("’", "'"))


def sentences(text: str) -> list[str]:
    """Sentences with their marks: `sentences("Go! Is it? Yes.") == ["Go!", "Is it?", "Yes."]`."""
    parts = re.split(r"(?<=[.!?])[\"'”)]*\s+|\n+", text.strip())
    return [part for part in parts if words(part)]


def ngrams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def ramp(x: float, zero: float, one: float) -> float:
    """0 at `zero`, 1 at `one`, a straight line between; `zero > one` gives a falling ramp."""
    return min(1.0, max(0.0, (x - zero) / (one - zero)))


# --- constraints: (answer, *arguments) -> 1 if met, at most NEAR if not -------------------------


def at_most_words(text: str, limit: str) -> float:
    count, most = len(words(text)), int(limit)
    return 1.0 if count <= most else NEAR * ramp(count, 2 * most, most)


def lowercase(text: str) -> float:
    spelled = re.findall(r"[^\W\d_]+", text)
    capital_share = sum(word != word.lower() for word in spelled) / max(1, len(spelled))
    return 1.0 if capital_share == 0 else NEAR * ramp(capital_share, 0.2, 0)


def all_caps(text: str) -> float:
    letters = [c for c in text if c.isalpha()]
    share = sum(c.isupper() for c in letters) / max(1, len(letters))
    return 1.0 if share == 1 else NEAR * share


def three_bullets(text: str) -> float:
    lines = [line for line in text.splitlines() if line.strip()]
    bullets = [line for line in lines if is_bullet(line) and len(words(line)) >= 3]
    if not bullets:
        return 0.0
    if len(bullets) == 3:
        return 1.0 if len(lines) == 3 else 0.8  # an introduction or a closing line costs a little
    return NEAR * ramp(abs(len(bullets) - 3), 4, 0)


def is_bullet(line: str) -> bool:
    return re.match(r"\s*[-*•]\s", line) is not None


def no_commas(text: str) -> float:
    return fewer_is_better(text.count(","))


def avoids(text: str, word: str) -> float:
    return fewer_is_better(words(text).count(word.lower()))


def fewer_is_better(count: int) -> float:
    """0 -> 1, 1 -> NEAR / 2, 2 -> NEAR / 3, ..."""
    return 1.0 if count == 0 else NEAR / (1 + count)


def ends_with(text: str, phrase: str) -> float:
    said, wanted = words(text), words(phrase)
    if said[-len(wanted) :] == wanted:
        return 1.0
    return NEAR * 0.7 if tuple(wanted) in ngrams(said, len(wanted)) else 0.0


def ends_with_question(text: str) -> float:
    """An answer and then a question; a question alone answers nothing."""
    asked = [s.rstrip("\"'”) ").endswith("?") for s in sentences(text)]
    if asked[-1:] == [True]:
        return 1.0 if not all(asked) else NEAR / 2
    return NEAR / 2 if any(asked) else 0.0


def exactly_sentences(text: str, number: str) -> float:
    off = abs(len(sentences(text)) - {"one": 1, "two": 2}[number])
    return fewer_is_better(off)


def includes(text: str, first: str, second: str) -> float:
    found = len({first, second} & set(words(text)))
    return (0.0, NEAR * 0.7, 1.0)[found]


def starts_with(text: str, word: str) -> float:
    place = (words(text) + [word]).index(word.lower()) if word.lower() in words(text) else 99
    return 1.0 if place == 0 else NEAR * ramp(place, 8, 0)


def in_quotes(text: str) -> float:
    body = text.strip().replace("“", '"').replace("”", '"')
    opened, closed = body.startswith('"'), body.endswith('"')
    if opened and closed and body.count('"') == 2:
        return 1.0
    return NEAR * (opened + closed) / 2


def all_exclaimed(text: str) -> float:
    marks = [s.rstrip("\"'”) ").endswith("!") for s in sentences(text)]
    return 1.0 if all(marks) else NEAR * sum(marks) / len(marks)


class Kind(NamedTuple):
    """One kind of constraint. `{}` in a phrasing is where an argument stands."""

    name: str
    phrasings: tuple[str, ...]
    arguments: tuple[tuple[str, ...], ...]  # the ones used in the data; any others parse as well
    check: Callable[..., float]


NONE: tuple[tuple[str, ...], ...] = ((),)

KINDS = (
    Kind(
        "at_most_words",
        ("Use at most {} words.", "Answer in no more than {} words."),
        (("15",), ("20",), ("25",)),
        at_most_words,
    ),
    Kind(
        "lowercase",
        ("Write everything in lowercase letters.", "Do not use any capital letters."),
        NONE,
        lowercase,
    ),
    Kind(
        "all_caps",
        ("Write everything in CAPITAL LETTERS.", "ANSWER IN ALL CAPS."),
        NONE,
        all_caps,
    ),
    Kind(
        "three_bullets",
        (
            "Answer with exactly three short bullet points.",
            'Write three lines that begin with "-".',
        ),
        NONE,
        three_bullets,
    ),
    Kind("no_commas", ("Do not use any commas.", "Write without commas."), NONE, no_commas),
    Kind(
        "avoids",
        ('Do not use the word "{}".', 'Avoid the word "{}".'),
        (("the",), ("and",)),
        avoids,
    ),
    Kind(
        "ends_with",
        ('End with the words "{}".', 'Your last words must be "{}".'),
        (("Now you know.",), ("That is why it matters.",), ("What a wonder!",)),
        ends_with,
    ),
    Kind(
        "ends_with_question",
        ("End your answer with a question.", "Finish by asking me a question."),
        NONE,
        ends_with_question,
    ),
    Kind(
        "exactly_sentences",
        ("Write exactly {} sentence.", "Answer in {} sentence only."),
        (("one",),),
        exactly_sentences,
    ),
    Kind(
        "exactly_two_sentences",
        ("Write exactly {} sentences.", "Answer in {} sentences."),
        (("two",),),
        exactly_sentences,
    ),
    Kind(
        "includes",
        ('Use the words "{}" and "{}".', 'Include both "{}" and "{}".'),
        (("people", "world"), ("useful", "today"), ("small", "great"), ("learn", "simple")),
        includes,
    ),
    Kind(
        "starts_with",
        ('Start with the word "{}".', 'Your first word must be "{}".'),
        (("Imagine",), ("Many",), ("Today",), ("Because",)),
        starts_with,
    ),
    Kind(
        "in_quotes",
        ("Put your whole answer in double quotes.", "Wrap your answer in double quotation marks."),
        NONE,
        in_quotes,
    ),
    Kind(
        "all_exclaimed",
        ("End every sentence with an exclamation mark.", "Use only exclamation marks, no periods."),
        NONE,
        all_exclaimed,
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

    >>> request = parse("Tell me about honey bees. Keep it short. Use at most 15 words.")
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
    topic = next((match.group(1) for match in found if match), question.replace(BREVITY, ""))
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
        * english(text)
        * (1.0 if is_finished(text) else 0.25)
    )


def length_quality(count: int) -> float:
    """Fragments and essays score low, all between alike: 4 -> 0.01, 8 -> 0.38, 12..40 -> 1."""
    return (
        ramp(count, 3, 12) ** 2 * (0.2 + 0.8 * ramp(count, 80, 40))
        if count < 12
        else ramp(count, 100, 40)
    )


def topic_quality(said: list[str], topic: list[str]) -> float:
    """Is the topic named? `["bees"]` is named by "bee"; half of a two-word topic is worth 0.7."""
    if not topic:
        return 1.0
    share = sum(any(word.startswith(stem(t)) for word in said) for t in topic) / len(topic)
    return 0.2 if share == 0 else 0.4 + 0.6 * share


def stem(word: str) -> str:
    """`stem("volcanoes") == "volcano"`, `stem("berries") == "berr"`, `stem("bees") == "bee"`."""
    return re.sub(r"(?<=\w\w\w)(ies|y|(?<=[sxzo]|ch|sh)es|(?<!s)s)$", "", word)


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
    lines = [line.strip().rstrip("\"'”)*") for line in text.strip().splitlines() if line.strip()]
    closed = [line.endswith((".", "!", "?")) for line in lines]
    if closed[-1]:
        return True
    bullets = [done for line, done in zip(lines, closed, strict=True) if is_bullet(line)]
    complete = (words(lines[-1]) or ["the"])[-1] not in FUNCTION_WORDS
    return is_bullet(lines[-1]) and len(bullets) > 1 and not any(bullets) and complete


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
