"""Embedded stories with what their writer knew: the same letters, and spans that are the words they claim."""

from workbench.data.embedded.annotated import annotated_story
from workbench.data.embedded.stories import PLOTS, story

STORIES = [annotated_story(index, seed, split) for seed, split in ((0, "train"), (3, "validation")) for index in range(150)]  # fmt: skip


def test_the_text_is_the_storys():
    assert [one.text for one in STORIES[:150]] == [story(index) for index in range(150)]
    assert STORIES[150].text == story(0, 3, "validation")


def test_every_slot_is_its_word():
    for one in STORIES:
        for slot in one.slots:
            written = one.text[slot.start : slot.end]
            if slot.form == "":  # "a" may have become "an"
                assert written.lower() in (slot.word.lower(), slot.word.lower() + "n"), (written, slot)
            assert not one.text[slot.end : slot.end + 1].isalpha(), (written, slot)
            assert written == written.strip()


def test_the_hero_is_named_and_its_pronouns_agree():
    for one in STORIES:
        heroes = [slot for slot in one.slots if slot.role == "hero"]
        assert {slot.word for slot in heroes} == {one.hero}
        assert any(slot.form == "" for slot in heroes)
        for slot in heroes:
            written = one.text[slot.start : slot.end].lower()
            if slot.form == "he":
                assert written == one.gender
            if slot.form == "himself":
                assert written == {"he": "himself", "she": "herself"}[one.gender]
    assert {one.gender for one in STORIES} == {"he", "she"}
    assert {one.plot for one in STORIES} == set(PLOTS)


def test_mentions_are_names_alone():
    for one in STORIES:
        for slot in one.mentions():
            assert one.text[slot.start : slot.end] == slot.word
            assert slot.word[0].isupper()
        assert one.hero in {slot.word for slot in one.mentions()}
