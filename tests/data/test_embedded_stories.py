"""Embedded stories: a pure function of their seed, about 1,000 words, and grammatical where a rule can tell."""

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from workbench.data.embedded import stories as module
from workbench.data.embedded.grammar import NAMES, build_classes
from workbench.data.embedded.stories import split_stories, stories, story
from workbench.errors import DataError

WORD = re.compile(r"[a-z]+n't|[a-z]+|'s")
GENDER = dict.fromkeys(NAMES["he"].split(), "himself") | dict.fromkeys(NAMES["she"].split(), "herself")


@pytest.fixture(scope="module")
def many() -> list[str]:
    return stories(5000)


def test_same_seed_same_stories_and_a_longer_list_begins_with_the_shorter(many):
    assert stories(10) == many[:10]
    assert [story(index) for index in (7, 3)] == [many[7], many[3]]
    assert stories(0) == []


def test_other_seeds_and_splits_are_other_stories(many):
    assert not set(stories(50, seed=1)) & set(many)
    assert not set(stories(50, split="validation")) & set(many)
    assert len(set(many)) == len(many)


def test_stories_do_not_depend_on_the_process(many):
    code = "from workbench.data.embedded.stories import stories; print(repr(stories(20)))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == repr(many[:20])


def test_about_a_thousand_words(many):
    counts = Counter(word for text in many for word in WORD.findall(text.lower()))
    assert 900 <= len(counts) <= 1200
    assert counts.most_common()[-1][1] >= 5, "a word too rare to learn"


def test_lengths(many):
    lengths = sorted(len(text.split()) for text in many)
    assert lengths[0] >= 50
    assert lengths[-1] <= 220
    assert 60 <= lengths[len(many) // 20] < lengths[-len(many) // 20] <= 175


def test_text_is_well_formed(many):
    for text in many:
        assert text.count('"') % 2 == 0, text
        assert not re.search(r"[{}\[\]|<>]|  |\bA [aeiou]|\ba [aeiouAEIOU]|None", text), text
        for paragraph in text.split("\n"):
            assert re.fullmatch(r'(?s)["A-Z].*[.!?]"?', paragraph), paragraph
            assert not re.search(r"[.!?] [a-z]", re.sub(r'"[^"]*"', "", paragraph)), paragraph


def test_names_come_back_and_pronouns_match(many):
    heroes = reflexives = 0
    for text in many:
        names = Counter(name for name in re.findall(r"[A-Z][a-z]+", text) if name in GENDER)
        heroes += names.most_common(1)[0][1] >= 3
        for boy, name in re.findall(r"(boy|girl) named (\w+)", text):
            assert GENDER[name] == {"boy": "himself", "girl": "herself"}[boy]
        for name, himself in re.findall(r"(?:^|[.!?]\"? |\n)([A-Z][a-z]+) \w+ (himself|herself)", text):
            if name in GENDER:
                reflexives += 1
                assert GENDER[name] == himself, text
    assert heroes > 0.95 * len(many)
    assert reflexives > 500


def test_subjects_agree_with_their_verbs(many):
    classes = build_classes()
    nouns = {one[form]: form for kind in ("being", "kin") for one in classes[kind] for form in "sp"}
    verbs = {one[form]: form for kind in ("act", "like") for one in classes[kind] for form in "sp"}
    past = {one["past"] for kind in ("act", "like") for one in classes[kind]}
    verbs |= {"is": "s", "are": "p"}
    checked = Counter()
    for text in many:
        for noun, verb in re.findall(r'(?:^|["\n]|[.!?] )The (\w+) (\w+)', text):
            if noun in nouns and verb in verbs and verb not in past:
                checked[nouns[noun]] += 1
                assert nouns[noun] == verbs[verb], text
    assert min(checked["s"], checked["p"]) > 200


def test_dialogue_is_common(many):
    assert sum('"' in text for text in many) > 0.8 * len(many)


def test_splits_share_no_story():
    train, validation = split_stories(300, 40, seed=2)
    assert (len(train), len(validation)) == (300, 40)
    assert train == stories(300, seed=2)
    assert validation == stories(40, seed=2, split="validation")
    assert not set(train) & set(validation)


def test_a_validation_story_seen_in_training_is_passed_over(monkeypatch):
    fake = {"train": ["a", "b", "c"], "validation": ["x", "b", "y", "a", "z"]}
    monkeypatch.setattr(module, "story", lambda index, seed, split: fake[split][index])
    assert split_stories(3, 3) == (["a", "b", "c"], ["x", "y", "z"])


@pytest.mark.parametrize(("n", "split"), [(-1, "train"), (3, "test")])
def test_wrong_arguments(n, split):
    with pytest.raises(DataError, match=rf"stories\(n={n}, split='{split}'\): n must be 0 or more"):
        stories(n, split=split)
