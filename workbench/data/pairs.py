"""Minimal pairs on this machine, for results that came without their sentences. Nothing is downloaded."""

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.errors import DataError, WorkbenchError, nearest

# BLiMP's 67 paradigms, and the 12 phenomena that its paper counts them under (Warstadt et al. 2020).


TERMS = {
    "anaphor_agreement": "anaphor agreement",
    "argument_structure": "argument structure",
    "s-selection": "argument structure",
    "binding": "binding",
    "control_raising": "control/raising",
    "determiner_noun_agreement": "determiner-noun agreement",
    "ellipsis": "ellipsis",
    "filler_gap_dependency": "filler-gap",
    "irregular_forms": "irregular forms",
    "island_effects": "island effects",
    "npi_licensing": "NPI licensing",
    "quantifiers": "quantifiers",
    "subject_verb_agreement": "subject-verb agreement",
}
"""`linguistics_term` of BLiMP's files -> phenomenon of the paper, where s-selection is argument structure."""

_UIDS = {
    "anaphor agreement": "anaphor_gender_agreement anaphor_number_agreement",
    "argument structure": "animate_subject_passive animate_subject_trans causative drop_argument "
    "inchoative intransitive passive_1 passive_2 transitive",
    "binding": "principle_A_c_command principle_A_case_1 principle_A_case_2 principle_A_domain_1 "
    "principle_A_domain_2 principle_A_domain_3 principle_A_reconstruction",
    "control/raising": "existential_there_object_raising existential_there_subject_raising "
    "expletive_it_object_raising tough_vs_raising_1 tough_vs_raising_2",
    "determiner-noun agreement": "determiner_noun_agreement_1 determiner_noun_agreement_2 "
    "determiner_noun_agreement_irregular_1 determiner_noun_agreement_irregular_2 "
    "determiner_noun_agreement_with_adj_2 determiner_noun_agreement_with_adj_irregular_1 "
    "determiner_noun_agreement_with_adj_irregular_2 determiner_noun_agreement_with_adjective_1",
    "ellipsis": "ellipsis_n_bar_1 ellipsis_n_bar_2",
    "filler-gap": "wh_questions_object_gap wh_questions_subject_gap "
    "wh_questions_subject_gap_long_distance wh_vs_that_no_gap wh_vs_that_no_gap_long_distance "
    "wh_vs_that_with_gap wh_vs_that_with_gap_long_distance",
    "irregular forms": "irregular_past_participle_adjectives irregular_past_participle_verbs",
    "island effects": "adjunct_island complex_NP_island "
    "coordinate_structure_constraint_complex_left_branch coordinate_structure_constraint_object_extraction "
    "left_branch_island_echo_question left_branch_island_simple_question sentential_subject_island "
    "wh_island",
    "NPI licensing": "matrix_question_npi_licensor_present npi_present_1 npi_present_2 "
    "only_npi_licensor_present only_npi_scope sentential_negation_npi_licensor_present "
    "sentential_negation_npi_scope",
    "quantifiers": "existential_there_quantifiers_1 existential_there_quantifiers_2 "
    "superlative_quantifiers_1 superlative_quantifiers_2",
    "subject-verb agreement": "distractor_agreement_relational_noun distractor_agreement_relative_clause "
    "irregular_plural_subject_verb_agreement_1 irregular_plural_subject_verb_agreement_2 "
    "regular_plural_subject_verb_agreement_1 regular_plural_subject_verb_agreement_2",
}

BLIMP = {uid: phenomenon for phenomenon, uids in _UIDS.items() for uid in uids.split()}
"""UID -> phenomenon, for the 67 paradigms."""


def phenomenon_of(uid: str, linguistics_term: str = "") -> str:
    """The paper's phenomenon for BLiMP's terms and UIDs; else the term as it stands; else the UID itself."""
    return TERMS.get(linguistics_term) or BLIMP.get(uid) or linguistics_term or uid


# Minimal pairs and where they come from: embedded, BLiMP on the hub or on the disk, or a folder of .jsonl.
#
# BLiMP: Warstadt et al. 2020, TACL 8:377-392; 67 paradigms of 1,000 pairs under 12 phenomena.


@dataclass(frozen=True)
class Pair:
    """A grammatical sentence and its ungrammatical twin, with BLiMP's fields (`UID` is `uid` here)."""

    sentence_good: str
    sentence_bad: str
    uid: str
    phenomenon: str
    pair_id: int
    field: str = ""
    linguistics_term: str = ""
    simple_LM_method: bool = True  # noqa: N815 (BLiMP's name)
    one_prefix_method: bool = False
    two_prefix_method: bool = False
    lexically_identical: bool = False

    def to_row(self) -> dict[str, str | int | bool]:
        """The pair as a row of BLiMP's schema, field for field."""
        return {
            "sentence_good": self.sentence_good,
            "sentence_bad": self.sentence_bad,
            "field": self.field,
            "linguistics_term": self.linguistics_term,
            "UID": self.uid,
            "simple_LM_method": self.simple_LM_method,
            "one_prefix_method": self.one_prefix_method,
            "two_prefix_method": self.two_prefix_method,
            "lexically_identical": self.lexically_identical,
            "pair_id": self.pair_id,
        }


@dataclass(frozen=True)
class PairSet:
    """Minimal pairs by paradigm.

    Attributes:
        name: "embedded", "blimp", or the folder's name.
        source: what they are: "embedded", "blimp" (every paradigm is one of BLiMP's 67), or "folder".
        paradigms: UID -> pairs, UIDs in alphabetical order.
    """

    name: str
    source: str
    paradigms: Mapping[str, Sequence[Pair]]

    def __len__(self) -> int:
        """How many pairs."""
        return sum(map(len, self.paradigms.values()))

    def __repr__(self) -> str:
        return f"PairSet({self.name!r}, {len(self.paradigms)} paradigms, {len(self)} pairs)"

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, paradigm by paradigm."""
        return [pair for pairs in self.paradigms.values() for pair in pairs]

    def phenomena(self) -> dict[str, str]:
        """UID -> phenomenon."""
        return {uid: pairs[0].phenomenon for uid, pairs in self.paradigms.items()}

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any paradigm, sentence or order of pairs."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            digest.update(f"{pair.uid}\0{pair.sentence_good}\0{pair.sentence_bad}\0".encode())
        return digest.hexdigest()[:16]

    def select(self, paradigms: Iterable[str] | None = None, limit: int | None = None) -> "PairSet":
        """Only these paradigms, and of each only the first `limit` pairs.

        Raises:
            DataError: no paradigm, one that the set lacks (the nearest is named), or a limit below 1.
        """
        if limit is not None and limit < 1:
            raise DataError(f"limit={limit}: at least 1 pair a paradigm.")
        prefix = f"{self.source}_"  # tables leave it out
        wanted = [
            prefix + uid if uid not in self.paradigms and prefix + uid in self.paradigms else uid
            for uid in (self.paradigms if paradigms is None else paradigms)
        ]
        if not wanted:
            raise DataError(f"{self.name}: no paradigms were chosen; leave the choice out for all of them.")
        for uid in wanted:
            if uid not in self.paradigms:
                raise DataError(f"{self.name} has no paradigm {uid!r}. {nearest(uid, self.paradigms)}")
        return PairSet(
            self.name,
            self.source,
            {uid: self.paradigms[uid][:limit] for uid in self.paradigms if uid in wanted},
        )


def open_pairs(source: str | None = None) -> PairSet:
    """Minimal pairs from anywhere.

    Args:
        source: None or "embedded"; a local folder in hub layout (`<paradigm>/train-*.parquet`); a folder of
            .jsonl, or one .jsonl file, with `sentence_good` and `sentence_bad` (the file's name stands in for
            a missing `UID`); a hub name such as `nyu-mll/blimp`. A path wins over a hub name.

    Raises:
        DataError: nothing there, nothing in it, or a file or row that is not pairs; the message names the
            file and the line. Equal sentences are refused, but for the seven such pairs of BLiMP itself.
    """
    if source is None or source == "embedded":
        from workbench.data.embedded.pairs import embedded_pairs

        return PairSet("embedded", "embedded", dict(sorted(embedded_pairs().items())))

    name, pairs = read_pairs(str(source))
    paradigms: dict[str, list[Pair]] = {}
    for pair in pairs:
        paradigms.setdefault(pair.uid, []).append(pair)
    if not paradigms:
        raise DataError(f"{source} holds no pairs: its files are empty.")
    kind = "blimp" if paradigms.keys() <= BLIMP.keys() else "folder"
    return PairSet("blimp" if kind == "blimp" else name, kind, dict(sorted(paradigms.items())))


# Minimal pairs in parquet and .jsonl files, local or of the hub; `pairs.open_pairs` is the door.


_PATTERNS = ("*/train*.parquet", "*/*.parquet", "*.jsonl")
_FLAGS = {
    "simple_LM_method": True,
    "one_prefix_method": False,
    "two_prefix_method": False,
    "lexically_identical": False,
}


def read_pairs(source: str) -> tuple[str, Iterable[Pair]]:
    """A short name and the pairs of a local folder, a .jsonl file, or a hub name (see `pairs.open_pairs`)."""
    path = Path(source).expanduser()
    if os.path.isdir(path):
        return path.resolve().name, read_folder(path)
    if os.path.isfile(path):
        return path.stem, _read_jsonl(path)
    if source.count("/") == 1 and not source.startswith((".", "/", "~")) and not source.endswith("/"):
        return source.split("/")[1], read_folder(_fetch(source))
    raise DataError(
        f"No pairs at {source!r}: no such folder. {nearest(source, ['embedded', 'nyu-mll/blimp'])} "
        "A folder of parquet or .jsonl files does as well."
    )


def _fetch(name: str) -> Path:
    """The hub's files, in its cache on this machine: downloaded once, and found there without a network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(
            snapshot_download(name, repo_type="dataset", allow_patterns=list(_PATTERNS), etag_timeout=8)
        )
    except RepositoryNotFoundError:
        raise DataError(
            f"{name!r} is neither a folder here nor a data set of the hub; check the name."
        ) from None
    except Exception as error:  # the hub's client lets the errors of its HTTP library through
        raise DataError(
            f"{name!r} is no folder here, and the hub is out of reach ({_reason(error.__cause__ or error)}); "
            "pass a local folder that holds its files, or leave it out for the embedded pairs."
        ) from None


def read_folder(folder: Path, paradigm: str | None = None) -> Iterator[Pair]:
    """The pairs of a folder, file by file.

    Args:
        folder: in hub layout, or of .jsonl files.
        paradigm: only the files of its folder, in hub layout.
    """
    for pattern in _PATTERNS:
        if paradigm is not None:
            pattern = pattern.replace("*/", f"{glob.escape(paradigm)}/")
        if files := sorted(folder.glob(pattern)):
            for file in files:
                yield from _read_jsonl(file) if file.suffix == ".jsonl" else _read_parquet(file)
            return
    raise DataError(
        f"{folder} holds no pairs: neither <paradigm>/*.parquet, as on the hub, nor *.jsonl was found in it."
    )


def _read_parquet(file: Path) -> Iterator[Pair]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.ParquetFile(file).read().to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} is not a readable parquet file ({_reason(error)}); fetch it again."
        ) from None
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        yield _pair(
            dict(zip(columns, values, strict=True)), file.parent.name, number, f"{file}, row {number + 1}"
        )


def _read_jsonl(file: Path) -> Iterator[Pair]:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}).") from None
    number = 0
    for line, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        where = f"{file}, line {line}"
        try:
            row = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8.") from None
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error}); each line is one JSON object.") from None
        if not isinstance(row, dict):
            raise DataError(
                f"{where}: a JSON {type(row).__name__}, where an object with both sentences goes."
            )
        yield _pair(row, file.stem, number, where)
        number += 1


def _pair(row: Mapping[str, Any], paradigm: str, number: int, where: str) -> Pair:
    good, bad = _sentence(row, "sentence_good", where), _sentence(row, "sentence_bad", where)
    uid, term = str(row.get("UID") or paradigm), str(row.get("linguistics_term") or "")
    if good == bad and uid not in BLIMP:
        raise DataError(
            f"{where}: sentence_good and sentence_bad are equal, so neither can win; drop the pair."
        )
    pair_id = row.get("pair_id", row.get("pairID", number))
    if not str(pair_id).isdecimal():
        raise DataError(f"{where}: field 'pair_id' is {pair_id!r}, not a whole number from 0 up.")
    return Pair(
        sentence_good=good,
        sentence_bad=bad,
        uid=uid,
        phenomenon=phenomenon_of(uid, term),
        pair_id=int(pair_id),
        field=str(row.get("field") or ""),
        linguistics_term=term,
        **{flag: bool(row.get(flag, default)) for flag, default in _FLAGS.items()},
    )


def _sentence(row: Mapping[str, Any], field: str, where: str) -> str:
    if field not in row:
        raise DataError(f"{where}: field {field!r} is missing; it has {', '.join(map(str, row)) or 'none'}.")
    if not isinstance(row[field], str) or not row[field].strip():
        raise DataError(f"{where}: field {field!r} is {row[field]!r}, not a sentence.")
    return row[field]


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


HERE = Path(__file__).resolve().parents[2]
USUAL = ("../shared/data", "data", ".")
"""Folders, beside the current one and the checkout, in which a set of pairs is looked for by its name."""
HUB = {"blimp": "datasets--nyu-mll--blimp"}
"""Set -> its folder in the hub's cache, where an earlier download lies."""


def find_pairs(name: str, source: str, fingerprint: str, data: str | None = None) -> PairSet | None:
    """The set of pairs that a result was made with, if this machine has it.

    Args:
        name: the set's, `blimp`.
        source: `embedded` for those that come with the package.
        fingerprint: the set must have it.
        data: a folder of pairs, or one that holds such folders, to look in first.
    """
    if source == "embedded":
        return fitting(None, fingerprint)
    for place in dict.fromkeys(map(str, places(name, data))):
        if (found := fitting(place, fingerprint)) is not None:
            return found
    return None


def places(name: str, data: str | None = None) -> Iterator[Path]:
    """Where the set called `name` may lie; see `find_pairs`."""
    if data is not None:
        yield from filter(os.path.exists, (Path(data).expanduser(), Path(data).expanduser() / name))
    for base in (Path(), HERE):
        yield from (place for usual in USUAL if (place := (base / usual / name).resolve()).is_dir())
    if name in HUB:
        home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
        hub = Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
        yield from sorted((hub / HUB[name] / "snapshots").glob("*"))


def holds(place: str | None, fingerprint: str) -> bool:
    """Whether a place has the pairs of this fingerprint (None: the embedded ones). BLiMP's folder takes a
    quarter of a second; the pairs themselves are not made."""
    if place is None:
        from workbench.data.embedded.pairs import FINGERPRINT

        return fingerprint == FINGERPRINT
    found = _hub_fingerprint(Path(place))
    return found == fingerprint if found else fitting(place, fingerprint) is not None


def paradigm_of(place: str | None, paradigm: str) -> list[Pair]:
    """The pairs of one paradigm of a place; of a folder in hub layout no other file is read.

    Raises:
        DataError: they cannot be read, or there are none.
    """

    if place is not None and (Path(place) / paradigm).is_dir():
        found = [pair for pair in read_folder(Path(place), paradigm) if pair.uid == paradigm]
        if found:
            return found
    return list(open_pairs(place).select([paradigm]).paradigms[paradigm])


def _hub_fingerprint(folder: Path) -> str | None:
    """`PairSet.fingerprint` of a folder in hub layout; None where it is another folder, or has files of
    several paradigms."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(folder.glob("*/train*.parquet"))
    wanted = ["UID", "sentence_good", "sentence_bad"]
    rows: dict[str, list[str]] = {}
    try:
        for file in files:
            table = pq.ParquetFile(file).read(wanted)
            uids, good, bad = (table.column(name).to_pylist() for name in wanted)
            if len(set(uids)) != 1:
                return None
            lines = rows.setdefault(uids[0], [])
            lines += [f"{uids[0]}\0{one}\0{other}\0" for one, other in zip(good, bad, strict=True)]
    except (pa.ArrowException, OSError, KeyError, TypeError):
        return None
    digest = hashlib.sha256("".join("".join(rows[uid]) for uid in sorted(rows)).encode())
    return digest.hexdigest()[:16] if rows else None


def fitting(place: str | None, fingerprint: str) -> PairSet | None:
    """The pairs of one place (None: the embedded ones), if they can be read and have the fingerprint."""
    if place is None and not holds(None, fingerprint):
        return None
    try:
        found = open_pairs(place)
    except (WorkbenchError, OSError):
        return None
    return found if found.fingerprint == fingerprint else None
