"""Every task: embedded variants in reach without a download, labels that are right by an independent look."""

import json
import subprocess
import sys
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from probes.align import align
from probes.splits import split
from probes.tasks import TASKS, load_task
from probes.tasks.characters import find_mentions, stories_with_characters
from probes.tasks.ending_sentiment import sentiment
from probes.tasks.pair_sentences import pairs
from probes.tasks.quotation import inside
from probes.tasks.texts import sentence_ends, sentence_starts
from probes.tasks.treebank import TEMPLATES, embedded_sentence
from probes.tasks.verb_number import number_of_verbs
from workbench.data.embedded.grammar import read_rules
from workbench.data.embedded.stories import stories
from workbench.data.tokenizer import train_tokenizer
from workbench.errors import DataError

SHAPES_ARE_CHECKED_IN = "test_dependency_depth_and_distance_agree"
REAL = {"ud": "ud_english_ewt/en_ewt-ud-dev.conllu.gz", "stories": "TinyStories", "blimp": "blimp"}


@pytest.fixture(autouse=True)
def mostly_unchecked(request):
    """Shape checks on every call of every word's functions take most of the time: one test keeps them."""
    if request.node.name != SHAPES_ARE_CHECKED_IN:
        request.getfixturevalue("unchecked")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(stories(200), 600)


def found(name, limit=60, **options):
    return list(TASKS[name].documents(limit=limit, **options))


def texts_of(documents):
    return [
        (document.text[slice(*item.spans[0])], item.label)
        for document in documents
        for item in document.items
    ]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_runs_with_no_download(tokenizer, name):
    task = TASKS[name]
    documents = found(name)
    aligned = align(documents, tokenizer, 128)
    assert len(documents) <= 150
    assert aligned.counts["dropped"] == 0
    assert aligned.first.shape[1] == task.n_spans
    assert bool(aligned.classes) == (task.kind == "classes")
    assert task.kind != "distance" or task.n_spans == 2
    assert len(aligned.classes) != 1
    for part in split(aligned, 0):
        assert len(part)
    again = align(found(name, 20), tokenizer, 128)
    assert again.tokens == aligned.tokens[: len(again.tokens)]
    other = found(name, 20, seed=1)
    assert [one.text for one in other] != [one.text for one in documents[:20]]
    for document in documents:
        assert all(item.word for item in document.items)
        assert all(document.text[slice(*span)].strip() for item in document.items for span in item.spans)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.corpus in REAL])
def test_every_task_runs_on_its_corpus(tokenizer, real_data, name):
    source = real_data / REAL[TASKS[name].corpus]
    if not source.exists():
        pytest.skip(f"{source.name} is absent")
    aligned = align(TASKS[name].documents(source, limit=60), tokenizer, 400)
    assert aligned.counts["dropped"] == 0
    assert len(aligned) > 20
    assert not any("embedded" in group for group in aligned.groups)


@pytest.mark.parametrize("name", TASKS)
def test_lazily_and_no_further_than_the_limit(name):
    assert len(list(islice(TASKS[name].documents(), 3))) == 3
    assert len(found(name, limit=1)) <= 2  # a pair has two sentences
    with pytest.raises(DataError, match="limit=0: at least 1 document"):
        found(name, limit=0)


def test_pos_of_the_embedded_treebank():
    counts = Counter(texts_of(found("pos", 400)))
    for word, tag in (("The", "DET"), ("the", "DET"), ("in", "ADP"), (".", "PUNCT"), ("and", "CCONJ"), ("that", "PRON"), ("that", "SCONJ")):  # fmt: skip
        assert counts[word, tag], (word, tag)
    assert {tag for word, tag in counts if word == "the"} == {"DET"}
    assert len({tag for _, tag in counts}) >= 12


def test_the_embedded_treebank_is_trees():
    sentences = [embedded_sentence(index) for index in range(400)]
    assert len({one.text for one in sentences}) > 380
    used = set()
    for one in sentences:
        assert one.depths().count(0) == 1
        assert sum(word.head == 0 for word in one.words) == 1
        assert all((word.head == 0) == (word.deprel == "root") for word in one.words)
        assert all(one.text[word.start : word.end] == word.form for word in one.words)
        assert one.text[0].isupper()
        assert not any(
            bad in one.text for bad in (" .", " ,", "  ", " 's", "{", " a a", " a e", " a i", " a o", " a u")
        )
        used.add(tuple((word.upos, word.head) for word in one.words))
    assert len(used) >= len(read_rules(TEMPLATES)["sentence"]) - 3


def test_dependency_depth_and_distance_agree():
    for relation, depth, distance in zip(
        found("dependency"), found("depth"), found("tree_distance"), strict=True
    ):
        depths = {item.spans[0]: item.label for item in depth.items}
        heads = {item.spans[0]: item.spans[1] for item in relation.items}
        for word, head in heads.items():
            if word in depths and head in depths:
                assert depths[word] == depths[head] + 1
        for item in distance.items:
            one, other = item.spans
            assert item.label >= abs(depths[one] - depths[other])
            assert (item.label == 1) == (heads.get(one) == other or heads.get(other) == one)
            ways = [one], [other]
            for way in ways:
                while way[-1] in heads:
                    way.append(heads[way[-1]])
            shared = len(set(ways[0]) & set(ways[1]))
            assert item.label == len(ways[0]) + len(ways[1]) - 2 * shared


def test_subject_number_agrees_with_the_verb():
    counts = Counter(texts_of(found("subject_number", 800)))
    for verb, number in (("is", "singular"), ("are", "plural"), ("has", "singular"), ("was", "singular"), ("were", "plural")):  # fmt: skip
        assert counts[verb, number] > 0
        other = {"singular": "plural", "plural": "singular"}[number]
        assert counts[verb, other] == 0, verb


def test_words_back():
    for name, back in (("previous_word", 1), ("word_two_back", 2)):
        document = found(name, 3)[0]
        words = [item.word for item in document.items]
        for at, item in enumerate(document.items[back:], start=back):
            assert item.label in (words[at - back], "(other)")
        assert sum(item.label != "(other)" for item in document.items) > len(words) / 4
        assert document.items[0].spans[0][0] > 0


def test_positions():
    text = found("position", 1)[0]
    assert [item.label for item in text.items] == list(range(len(text.items)))
    sentence = found("sentence_start", 1)[0]
    assert [item.spans for item in sentence.items] == [item.spans for item in text.items]
    starts = {item.spans[0][0] for item in sentence.items if item.label == 0}
    assert starts == set(sentence_starts(sentence.text))
    for one, other in zip(sentence.items, sentence.items[1:], strict=False):
        assert other.label in (0, one.label + 1)


@pytest.mark.parametrize(
    ("text", "starts", "ends"),
    [
        ('He ran. "Stop!" she said. End', ["He", '"Stop', "she", "End"], [".", "!", "."]),
        ("One…  Two?! Three.\nFour\n\nFive", ["One", "Two", "Three", "Four", "Five"], ["…", "!", "."]),
        ("  Hi. ", ["Hi"], ["."]),
        ("no end", ["no"], []),
        ("It cost 3.50 now. Yes", ["It", "Yes"], ["."]),
    ],
)
def test_sentences(text, starts, ends):
    assert [text[at:].startswith(word) for at, word in zip(sentence_starts(text), starts, strict=True)] == [
        True
    ] * len(starts)
    assert [text[slice(*place)] for place in sentence_ends(text)] == ends


@pytest.mark.parametrize(
    ("text", "stretches"),
    [
        ('a "b c" d "e"', ["b c", "e"]),
        ("“b” c", ["b"]),
        ('a "b', None),
        ("a ” b “", None),
        ("“a “b” c”", None),
        ("it's nobody's", []),
    ],
)
def test_quotations(text, stretches):
    places = inside(text)
    assert (None if places is None else [text[low + 1 : high] for low, high in places]) == stretches


def test_words_inside_quotations():
    for document in found("quotation", 40):
        for item in document.items:
            before = document.text[: item.spans[0][0]].count('"')
            assert (item.label == "inside") == (before % 2 == 1)


def test_the_sentence_ends_where_a_mark_follows():
    counts = Counter()
    for document in found("sentence_boundary", 40):
        for item in document.items:
            follows = document.text[item.spans[0][1] :][:1]
            assert (item.label == "ends") == (follows in (".", "!", "?"))
            counts[item.label] += 1
    assert min(counts.values()) > 100


def test_first_mentions():
    for document in found("first_mention", 40):
        seen = set()
        for item in document.items:
            name = document.text[slice(*item.spans[0])]
            assert item.label == ("later" if name in seen else "first")
            assert name not in document.text[: item.spans[0][0]] or name in seen
            seen.add(name)


def test_gender_agrees_with_the_pronoun_in_the_opening():
    checked = 0
    for document in found("protagonist_gender", 80):
        labels = {item.label for item in document.items}
        assert len(labels) == 1
        for word, gender in (("boy named", "masculine"), ("girl named", "feminine")):
            if word in document.text:
                assert labels == {gender}
                checked += 1
        for item in document.items:
            ((start, end),) = item.spans
            assert document.text[start:end] in (".", "!", "?")
            assert document.text[:start].lower().endswith(item.word)
    assert checked > 15


def test_heuristics_find_what_the_writer_knew():
    """Names and protagonists are found in plain text as they are known by construction."""
    hits = heroes = total = mentions = 0
    for story in stories_with_characters(None, 200, 0):
        guess = find_mentions(story.text)
        mentions += len(story.mentions)
        hits += len(set(guess) & set(story.mentions))
        counts = Counter(name for *_, name in guess)
        heroes += counts.most_common(1)[0][0] == story.hero
        total += 1
    assert hits > 0.98 * mentions
    assert heroes > 0.85 * total


def test_names_are_not_what_is_also_written_small():
    text = "One day Will met Zork. Zork will go. The Day was I. Mom said hi to Zork."
    assert [name for *_, name in find_mentions(text)] == ["Zork", "Zork", "Mom", "Zork"]


@pytest.mark.parametrize(
    ("text", "hero", "gender"),
    [
        ("A girl named Zork met Tom. Zork said he ran. Then Zork left.", "Zork", "feminine"),
        ("One day Zork ran. He saw that Zork was fast. All saw Zork.", "Zork", "masculine"),
        ("One day Zork ran. He saw her and Zork was glad. All saw Zork.", "Zork", ""),
        ("Once upon a time Lily met Ben. Lily ran. He saw Lily.", "Lily", "feminine"),
        ("It rained all day.", "", ""),
    ],
)
def test_whose_story_it_is(tmp_path, text, hero, gender):
    (tmp_path / "one.txt").write_text(text + "<|endoftext|>" + text + " Again.")
    story = next(stories_with_characters(tmp_path / "one.txt", 1, 0))
    assert (story.hero, story.gender) == (hero, gender)


def test_sentiment_by_list():
    assert sentiment("She was happy and smiled.") == "positive"
    assert sentiment("He was sad. He cried.") == "negative"
    assert sentiment("He was not sad.") == "neutral"
    assert sentiment("She didn't laugh but he was happy.") == "positive"
    assert sentiment("It was a day.") == "neutral"


def test_sentiment_is_read_before_the_ending():
    document = found("ending_sentiment", 1)[0]
    last = max(item.spans[0][1] for item in document.items)
    assert len(sentence_starts(document.text[last:].removesuffix("The end."))) == 1
    assert document.items[0].label == sentiment(document.text[last:])
    assert len({item.label for one in found("ending_sentiment") for item in one.items}) == 2


def test_pairs_give_nothing_away():
    """Each form of verb and reflexive stands under both labels in equal shares."""
    for name in ("verb_number", "anaphor_gender"):
        counts = Counter(texts_of(found(name, 400)))
        for (word, label), count in counts.items():
            others = sum(n for (form, _), n in counts.items() if form == word) - count
            assert count <= 8 or abs(count - others) < 0.55 * (count + others), (word, label)
        groups = Counter(document.group for document in found(name, 400))
        assert set(groups.values()) == {2}


def test_acceptability_has_both_of_each_pair():
    documents = found("acceptability", 200)
    groups: dict[str, list[str]] = {}
    for document in documents:
        assert document.items[0].spans == ((0, len(document.text)),)
        groups.setdefault(document.group, []).append(document.items[0].label)
    assert all(sorted(labels) == ["acceptable", "unacceptable"] for labels in groups.values())
    assert len({group.partition(":")[0] for group in groups}) > 20


@pytest.mark.parametrize(
    ("verb", "other", "number"),
    [("is", "are", "singular"), ("weren't", "isn't", "plural"), ("sleeps", "sleep", "singular"), ("pass", "passes", "plural"), ("cries", "cry", "singular"), ("has", "have", "singular")],
)  # fmt: skip
def test_number_of_verbs(verb, other, number):
    assert number_of_verbs(verb, other) == number


def test_no_such_paradigm(tmp_path):
    row = {"sentence_good": "A cat ran.", "sentence_bad": "Cat a ran.", "UID": "mine"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"has no paradigm of subject-verb agreement; it has mine"):
        list(TASKS["verb_number"].documents(tmp_path))
    assert len(list(pairs(tmp_path, None, 0, lambda _: True, "any"))) == 1


def test_blimps_numbers(real_data):
    if not (real_data / "blimp").is_dir():
        pytest.skip("BLiMP is absent")
    determiners = {
        "this": "singular",
        "that": "singular",
        "these": "plural",
        "those": "plural",
        "every": "singular",
    }
    right = total = 0
    for document in TASKS["verb_number"].documents(real_data / "blimp", limit=3000):
        number = determiners.get(document.text.lower().split()[0])
        if number and not document.group.startswith("distractor"):
            total += 1
            right += document.items[0].label == number
    assert total > 200
    assert right > 0.98 * total  # a few of BLiMP's pairs have their sentences the wrong way round


def test_embedded_only_tasks_refuse_other_stories():
    for name in ("mention_role", "plot"):
        with pytest.raises(DataError, match=rf"{name} runs on the embedded stories alone"):
            list(TASKS[name].documents("stories.txt"))


def test_load_task():
    assert load_task("pos") is TASKS["pos"]
    assert load_task(TASKS["plot"]) is TASKS["plot"]
    with pytest.raises(DataError, match=r"No task 'poss'. Did you mean 'pos'"):
        load_task("poss")


def test_importing_the_tasks_is_light():
    code = "import sys, probes.tasks; print(sorted({'torch', 'pandas', 'sklearn', 'transformers', 'tokenizers', 'datasets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_position_counts_words(tokenizer):
    document = found("position", 1)[0]
    aligned = align([document], tokenizer, 500)
    kept = np.array([item.label for item in document.items])
    assert set(aligned.label) <= set(kept)
    assert np.corrcoef(aligned.position, aligned.label)[0, 1] > 0.999


@pytest.mark.parametrize(
    "source", ["a" * 5000, "\x00", "", ".", "/dev/null", "x" * 300 + ".conllu.gz", "~nobody/x"]
)
def test_sources_that_are_none(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    for name in ("pos", "quotation", "verb_number"):
        with pytest.raises(DataError) as caught:
            found(name, source=source)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"No task"):
        load_task(source)
