"""Opening minimal pairs: the real BLiMP, folders, the hub; and the words of each refusal."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workbench.data.pairs import BLIMP, Pair, PairSet, describe_pairs, open_pairs, phenomenon_of
from workbench.errors import DataError

GOOD = {"sentence_good": "The cat sleeps.", "sentence_bad": "The cat sleep."}


def write_jsonl(file, *rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def write_parquet(file, *rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file


def refusal(source) -> str:
    with pytest.raises(DataError) as caught:
        open_pairs(str(source))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def blimp(real_data) -> PairSet:
    return open_pairs(str(real_data / "blimp"))


def test_real_blimp(blimp):
    assert (blimp.name, blimp.source, len(blimp)) == ("blimp", "blimp", 67_000)
    assert blimp.paradigms.keys() == BLIMP.keys()
    assert {len(pairs) for pairs in blimp.paradigms.values()} == {1000}
    assert list(blimp.paradigms) == sorted(blimp.paradigms)
    first = blimp.paradigms["regular_plural_subject_verb_agreement_1"][5]
    assert first == Pair(
        sentence_good="The Borgias see Veronica.",
        sentence_bad="The Borgias sees Veronica.",
        uid="regular_plural_subject_verb_agreement_1",
        phenomenon="subject-verb agreement",
        pair_id=5,
        field="morphology",
        linguistics_term="subject_verb_agreement",
        one_prefix_method=True,
    )


def test_the_papers_twelve_phenomena(blimp):
    assert blimp.phenomena() == {uid: BLIMP[uid] for uid in sorted(BLIMP)}
    assert Counter(blimp.phenomena().values()) == {
        "anaphor agreement": 2,
        "argument structure": 9,
        "binding": 7,
        "control/raising": 5,
        "determiner-noun agreement": 8,
        "ellipsis": 2,
        "filler-gap": 7,
        "irregular forms": 2,
        "island effects": 8,
        "NPI licensing": 7,
        "quantifiers": 4,
        "subject-verb agreement": 6,
    }


def test_the_seven_equal_pairs_of_blimp_are_kept(blimp):
    equal = Counter(one.uid for one in blimp.pairs if one.sentence_good == one.sentence_bad)
    assert equal == {"passive_1": 2, "principle_A_case_2": 5}


def test_real_supplement(real_data):
    found = open_pairs(str(real_data / "blimp_supplement"))
    assert (found.name, found.source) == ("blimp_supplement", "folder")
    sizes = {uid: len(pairs) for uid, pairs in found.paradigms.items()}
    assert sizes == {
        "hypernym": 842,
        "qa_congruence_easy": 64,
        "qa_congruence_tricky": 165,
        "subject_aux_inversion": 3867,
        "turn_taking": 280,
    }
    assert found.phenomena() == {uid: uid for uid in sizes}
    assert [one.pair_id for one in found.paradigms["turn_taking"]] == list(range(280))
    assert "\n" in found.paradigms["turn_taking"][0].sentence_good


def test_a_row_goes_there_and_back(tmp_path, blimp):
    some = blimp.select(["transitive", "wh_island"], limit=20)
    write_jsonl(tmp_path / "mine.jsonl", *(one.to_row() for one in some.pairs))
    assert open_pairs(str(tmp_path)).paradigms == some.paradigms


def test_select(blimp):
    some = blimp.select(["wh_island", "causative"], limit=3)
    assert {uid: len(pairs) for uid, pairs in some.paradigms.items()} == {"causative": 3, "wh_island": 3}
    assert blimp.select().fingerprint == blimp.fingerprint != some.fingerprint
    assert len(blimp.select(limit=10)) == 670
    with pytest.raises(DataError, match=r"blimp has no paradigm 'wh_iland'. Did you mean 'wh_island'\?"):
        blimp.select(["wh_iland"])
    with pytest.raises(DataError, match="limit=0: at least 1"):
        blimp.select(limit=0)


def test_select_refuses_an_empty_choice(blimp):
    with pytest.raises(DataError, match="no paradigms were selected"):
        blimp.select([])


def test_fingerprint_sees_sentences_and_order():
    one, two = (Pair(good, "x", "u", "u", 0) for good in ("a", "b"))
    prints = {
        PairSet("n", "folder", {"u": pairs}).fingerprint for pairs in ([one, two], [two, one], [one], [two])
    }
    assert len(prints) == 4
    assert PairSet("other name", "folder", {"u": [one]}).fingerprint in prints


def test_a_folder_of_jsonl(tmp_path):
    write_jsonl(tmp_path / "b_rule.jsonl", GOOD, "\n", GOOD | {"linguistics_term": "binding", "pairID": "7"})
    write_jsonl(tmp_path / "a_rule.jsonl", GOOD | {"UID": "named"})
    found = open_pairs(str(tmp_path))
    assert (found.name, found.source) == (tmp_path.name, "folder")
    assert list(found.paradigms) == ["b_rule", "named"]
    assert [one.pair_id for one in found.paradigms["b_rule"]] == [0, 7]
    assert found.phenomena() == {"b_rule": "b_rule", "named": "named"}


def test_a_single_jsonl_file_and_unicode(tmp_path):
    file = write_jsonl(
        tmp_path / "één.jsonl", {"sentence_good": "Zoë slaapt.", "sentence_bad": "Zoë slapen."}
    )
    found = open_pairs(str(file))
    assert found.name == "één"
    assert found.pairs[0].sentence_good == "Zoë slaapt."


def test_terms_and_uids_name_phenomena():
    assert phenomenon_of("mine", "s-selection") == "argument structure"
    assert phenomenon_of("wh_island") == "island effects"
    assert phenomenon_of("mine", "word_order") == "word_order"
    assert phenomenon_of("mine") == "mine"


def test_a_folder_in_hub_layout_without_uid(tmp_path):
    write_parquet(tmp_path / "rule" / "train-00000-of-00001.parquet", GOOD, GOOD)
    write_parquet(tmp_path / "rule" / "test-00000-of-00001.parquet", GOOD)
    found = open_pairs(str(tmp_path))
    assert {uid: len(pairs) for uid, pairs in found.paradigms.items()} == {"rule": 2}


def test_a_part_of_blimp_is_still_blimp(tmp_path):
    write_jsonl(tmp_path / "wh_island.jsonl", GOOD)
    found = open_pairs(str(tmp_path))
    assert (found.source, found.phenomena()) == ("blimp", {"wh_island": "island effects"})


def test_missing_and_empty_folders(tmp_path):
    assert refusal(tmp_path / "nowhere").startswith(f"No pairs at '{tmp_path / 'nowhere'}': no such folder.")
    assert "Did you mean 'embedded'?" in refusal("embeded")
    assert refusal(tmp_path) == (
        f"{tmp_path} holds no pairs: found neither <paradigm>/*.parquet, as on the hub, nor *.jsonl."
    )
    write_jsonl(tmp_path / "rule.jsonl", "\n\n")
    assert refusal(tmp_path) == f"{tmp_path} holds no pairs: its files are empty."


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"sentence_good": "a"}, "field 'sentence_bad' is missing; it has sentence_good."),
        ({"text": "a", "n": 1}, "field 'sentence_good' is missing; it has text, n."),
        (GOOD | {"sentence_bad": None}, "field 'sentence_bad' is None, not a sentence."),
        (GOOD | {"sentence_good": " "}, "field 'sentence_good' is ' ', not a sentence."),
        (GOOD | {"sentence_bad": GOOD["sentence_good"]}, "sentence_good and sentence_bad are equal"),
        (GOOD | {"pair_id": "seven"}, "field 'pair_id' is 'seven', not a whole number from 0 up."),
        ("[1, 2]\n", "a JSON list, not an object with both sentences."),
        ("{'sentence_good': 1}\n", "not JSON (Expecting property name"),
        ("{broken\n", "not JSON"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, row, words):
    file = write_jsonl(tmp_path / "rule.jsonl", GOOD, "\n", row)
    assert refusal(tmp_path).startswith(f"{file}, line 3: {words}")


def test_byte_order_marks_and_wide_encodings(tmp_path):
    text = json.dumps(GOOD)
    file = tmp_path / "rule.jsonl"
    file.write_text(text, "utf-8-sig")
    assert open_pairs(file).pairs[0].sentence_good == GOOD["sentence_good"]
    for encoding, name in (("utf-16", "UTF-16"), ("utf-16-be", "UTF-16BE"), ("utf-32", "UTF-32")):
        file.write_bytes(text.encode(encoding))
        assert (
            refusal(file) == f"{file} is {name}; convert it to UTF-8, such as with iconv -f {name} -t UTF-8."
        )


def test_pair_numbers_are_unique_over_files(tmp_path):
    named = GOOD | {"UID": "rule"}
    write_jsonl(tmp_path / "a.jsonl", named, named, GOOD)
    write_jsonl(tmp_path / "b.jsonl", named, GOOD)
    pairs = open_pairs(tmp_path).pairs
    assert [(one.uid, one.pair_id) for one in pairs] == [
        ("a", 2),
        ("b", 1),
        *(("rule", i) for i in (0, 1, 2)),
    ]
    file = write_jsonl(tmp_path / "c.jsonl", named | {"pair_id": 1})
    assert refusal(tmp_path).startswith(f"{file}, line 1: paradigm 'rule' already has a pair with pair_id 1;")


def test_a_single_parquet_file(tmp_path):
    assert list(open_pairs(write_parquet(tmp_path / "mine.parquet", GOOD)).paradigms) == ["mine"]
    file = write_parquet(tmp_path / "rule" / "train-00000-of-00001.parquet", GOOD)
    assert list(open_pairs(file).paradigms) == ["rule"]


def test_a_part_of_blimp_is_told_from_blimp(blimp):
    whole = describe_pairs(blimp)
    assert (whole.name, whole.n_paradigms, whole.n_pairs, whole.part_of) == ("blimp", 67, 67_000, None)
    assert whole.sha256 == "9cf2951f4b720dbff7938cf36851f207567b057f51d179402f7576ec5b55c19b"
    names = [
        ("wh_island", ["wh_island"], None),
        ("blimp (2 of 67 paradigms)", ["wh_island", "causative"], None),
    ]
    for name, uids, limit in (*names, ("blimp (670 of 67,000 pairs)", None, 10)):
        part = describe_pairs(blimp.select(uids, limit))
        assert (part.name, part.part_of) == (name, "blimp")
        assert part.sha256 != whole.sha256
    assert describe_pairs(open_pairs()).part_of is None


def test_not_utf8(tmp_path):
    (tmp_path / "rule.jsonl").write_bytes(json.dumps(GOOD).encode() + b'\n{"sentence_good": "caf\xe9"}\n')
    assert refusal(tmp_path).startswith(f"{tmp_path / 'rule.jsonl'}, line 2: not UTF-8 (byte 23)")


def test_a_damaged_parquet(tmp_path):
    file = write_parquet(tmp_path / "rule" / "train-0.parquet", GOOD)
    whole = file.read_bytes()
    for broken in (b"", b"not parquet at all", whole[: len(whole) // 2], whole[:-40] + b"\0" * 40):
        file.write_bytes(broken)
        assert refusal(tmp_path).startswith(f"{file} is not a readable parquet file (")


def test_a_parquet_without_the_columns(tmp_path):
    file = write_parquet(tmp_path / "data" / "train-0.parquet", {"text": "Once"})
    assert refusal(tmp_path) == f"{file}, row 1: field 'sentence_good' is missing; it has text."


def test_hub_out_of_reach():
    words = refusal("some-owner/some-pairs")
    assert words.startswith("'some-owner/some-pairs' is not a local folder, and the hub cannot be reached (")
    assert "pass a local folder" in words


def test_hub_without_that_name(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    def absent(*_, **__):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    assert refusal("nyu-mll/blump") == (
        "'nyu-mll/blump' is neither a local folder nor a data set on the hub; check the name."
    )


def test_hub_at_hand(monkeypatch, real_data):
    import huggingface_hub

    asked = {}

    def fetch(name, **options):
        asked.update(options, name=name)
        return str(real_data / "blimp")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    found = open_pairs("nyu-mll/blimp")
    assert (found.name, found.source, len(found)) == ("blimp", "blimp", 67_000)
    assert (asked["name"], asked["repo_type"]) == ("nyu-mll/blimp", "dataset")


def test_a_path_wins_over_a_hub_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "nyu-mll" / "blimp" / "rule.jsonl", GOOD)
    assert len(open_pairs("nyu-mll/blimp")) == 1
