"""Where pairs are on this machine, told without making them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workbench.data.pairs import (
    BLIMP,
    Pair,
    find_pairs,
    has_fingerprint,
    open_matching,
    open_pairs,
    read_paradigm,
)


@pytest.fixture(scope="module")
def blimp(tmp_path_factory):
    """A folder in hub layout, under three of BLiMP's names."""
    root = tmp_path_factory.mktemp("hand") / "blimp"
    for uid in sorted(BLIMP)[:3]:
        rows = [Pair(f"A é {uid} {n}.", f"B {uid} {n}.", uid, "x", n).to_row() for n in range(4)]
        (root / uid).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), root / uid / "train-00000-of-00001.parquet")
    return root


def test_the_fingerprint_is_that_of_the_pairs(blimp):
    whole = open_pairs(str(blimp))
    assert has_fingerprint(str(blimp), whole.fingerprint)
    assert not has_fingerprint(str(blimp), "0" * 16)
    assert open_matching(str(blimp), "0" * 16) is None
    found = find_pairs("blimp", "blimp", whole.fingerprint, str(blimp.parent))
    assert found is not None
    assert found.fingerprint == whole.fingerprint
    assert find_pairs("blimp", "folder", "0" * 16, str(blimp)) is None


def test_one_paradigm_reads_one_file(blimp, monkeypatch):
    uid = sorted(BLIMP)[1]
    assert read_paradigm(str(blimp), uid) == list(open_pairs(str(blimp)).paradigms[uid])
    other = next((blimp / sorted(BLIMP)[0]).iterdir())
    whole = other.read_bytes()
    other.write_bytes(b"PAR1")
    try:
        assert len(read_paradigm(str(blimp), uid)) == 4
        assert not has_fingerprint(str(blimp), "0" * 16)
    finally:
        other.write_bytes(whole)


def test_the_embedded_pairs_are_known_by_their_fingerprint():
    pairs = open_pairs(None)
    assert has_fingerprint(None, pairs.fingerprint)
    assert not has_fingerprint(None, "0" * 16)
    first = next(iter(pairs.paradigms))
    assert read_paradigm(None, first) == list(pairs.paradigms[first])


def test_folders_of_jsonl_go_the_long_way(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"sentence_good": "A b.", "sentence_bad": "B a."}\n')
    pairs = open_pairs(str(tmp_path))
    assert has_fingerprint(str(tmp_path), pairs.fingerprint)
    assert read_paradigm(str(tmp_path), "mine") == list(pairs.paradigms["mine"])
