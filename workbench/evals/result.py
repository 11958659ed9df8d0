"""`BlimpResult`: what a model decided on every minimal pair, with shares, intervals and ties."""

import dataclasses
import io
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from workbench.errors import DataError, InputError
from workbench.evals.compact import widened
from workbench.evals.intervals import Number, Share, weighted_share
from workbench.evals.protocols import PROTOCOLS, Protocol, describe
from workbench.files import read_json, write_bytes, write_json
from workbench.runs.shipped import results_folder

if TYPE_CHECKING:
    import pandas as pd

CHANCE = 0.5
SHARE_COLUMNS = ["n", "accuracy", "low", "high", "ties"]


@dataclasses.dataclass(frozen=True)
class Overall:
    """Three ways to make one number of many paradigms; the same when all have equally many pairs
    and all phenomena equally many paradigms."""

    paradigms: Share
    """Mean over paradigms: BLiMP's own overall figure."""
    phenomena: Share
    """Mean over phenomena, each the mean over its paradigms."""
    micro: Share
    """Share of all pairs."""


@dataclasses.dataclass(frozen=True)
class BlimpResult:
    """Decisions on minimal pairs under one protocol."""

    per_pair: "pd.DataFrame"
    """One row a pair: paradigm, phenomenon, pair_id, sentence_good, sentence_bad, logp_good, logp_bad
    (nats), tokens_good, tokens_bad (scored tokens), margin (score of the good sentence minus that of
    the bad one, by the protocol's reduction), correct (1, 0, or what the protocol gives a tie)."""
    protocol: Protocol
    pll: str | None
    pairs: str
    """Name of the set of pairs: `blimp`, `embedded`, or a folder's name."""
    source: str
    """`blimp`, `embedded` or `folder`."""
    fingerprint: str
    """Digest of the pairs."""
    run: str | None = None
    step: int | None = None
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The model's configuration."""
    partial: bool = False
    """Whether only some paradigms, or some pairs of each, were scored."""
    seconds: float = 0.0
    """Time that the scoring took."""

    def __repr__(self) -> str:
        return f"BlimpResult({self.title}: {self.overall.paradigms} over {len(self.paradigms)} paradigms)"

    @property
    def title(self) -> str:
        """Run, pairs and protocol in a few words; embedded pairs are called so."""
        name = {"embedded": "the embedded pairs (not BLiMP)", "blimp": "BLiMP"}.get(self.source, self.pairs)
        who = "model" if self.run is None else self.run if self.step is None else f"{self.run}@{self.step}"
        part = "a part of " if self.partial else ""
        pll = f", {self.pll} PLL" if self.pll else ""
        return f"{who} on {part}{name}, protocol {self.protocol.name}{pll}"

    @cached_property
    def paradigms(self) -> "pd.DataFrame":
        """By paradigm: phenomenon, n, accuracy, low, high, ties."""
        import pandas as pd

        frame = self.per_pair.assign(tie=self.per_pair.margin == 0)
        groups = frame.groupby("paradigm", sort=True).agg(
            phenomenon=("phenomenon", "first"),
            accuracy=("correct", "mean"),
            n=("correct", "size"),
            ties=("tie", "sum"),
        )
        rows = {}
        for paradigm, part in groups.to_dict("index").items():
            share = weighted_share([part["accuracy"]], [part["n"]], [1.0], part["ties"])
            rows[paradigm] = {"phenomenon": part["phenomenon"], **dataclasses.asdict(share)}
        frame = pd.DataFrame([*rows.values()], pd.Index(rows, name="paradigm"))
        return frame.loc[:, ["phenomenon", *SHARE_COLUMNS]]

    @cached_property
    def phenomena(self) -> "pd.DataFrame":
        """By phenomenon, the mean over its paradigms: paradigms, n, accuracy, low, high, ties."""
        import pandas as pd

        rows = {}
        for phenomenon, part in self.paradigms.groupby("phenomenon"):
            share = weighted_share(list(part.accuracy), list(part.n), [1.0] * len(part), int(part.ties.sum()))
            rows[phenomenon] = {"paradigms": len(part), **dataclasses.asdict(share)}
        frame = pd.DataFrame([*rows.values()], pd.Index(rows, name="phenomenon"))
        return frame.loc[:, ["paradigms", *SHARE_COLUMNS]]

    @cached_property
    def overall(self) -> Overall:
        """The means over paradigms, over phenomena and over pairs."""
        frame = self.paradigms
        accuracies, counts, ties = list(frame.accuracy), list(frame.n), int(frame.ties.sum())
        in_phenomenon = frame.groupby("phenomenon").accuracy.transform("size")

        def mean(weights: list[Number]) -> Share:
            return weighted_share(accuracies, counts, weights, ties)

        return Overall(
            paradigms=mean([1.0] * len(frame)), phenomena=mean(list(1 / in_phenomenon)), micro=mean(counts)
        )

    def to_frame(self) -> "pd.DataFrame":
        """The paradigms' table with run, step, protocol and pairs beside it, ready to be concatenated."""
        frame = self.paradigms.reset_index()
        return frame.assign(
            run=self.run, step=self.step, protocol=self.protocol.name, pll=self.pll, pairs=self.pairs
        )

    def plot(self, ax: Any = None) -> Any:
        """Accuracy of each phenomenon as a bar with its interval, and the chance line; needs matplotlib.

        Returns:
            The matplotlib axes.
        """
        from workbench.plots.minimal_pairs import plot_phenomena

        return plot_phenomena(self, ax)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single pairs, as plain values: what the JSON file holds."""
        overall = self.overall
        return {
            "run": self.run,
            "step": self.step,
            "pairs": self.pairs,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "partial": self.partial,
            "protocol": describe(self.protocol),
            "pll": self.pll,
            "chance": CHANCE,
            "seconds": self.seconds,
            "model": self.model,
            "overall": dataclasses.asdict(overall.micro),
            "mean_over_paradigms": dataclasses.asdict(overall.paradigms),
            "mean_over_phenomena": dataclasses.asdict(overall.phenomena),
            "phenomena": self.phenomena.reset_index().to_dict("records"),
            "paradigms": self.paradigms.reset_index().to_dict("records"),
        }

    def file_name(self) -> str:
        """`000512-native-blimp`; a masked model's has the pseudo-log-likelihood after the protocol."""
        step = "final" if self.step is None else f"{self.step:06d}"
        words = [step, self.protocol.name, *([self.pll] if self.pll else []), self.pairs]
        return re.sub(r"[^\w.-]+", "_", "-".join(words))

    def save(self, run: Any) -> Path:
        """Write `blimp/<step>-<protocol>-<pairs>.parquet` (the pairs), then `.json` (the shares), each in
        one step. A partial result goes to `blimp/partial/`, where no one takes it for the run's figure.

        Args:
            run: a run, or its folder; of a run that ships the result goes to the cache.

        Returns:
            The JSON file's path.
        """
        folder = results_folder(getattr(run, "path", run)) / "blimp"
        if self.partial:
            folder = folder / "partial"
        path = folder / f"{self.file_name()}.json"
        buffer = io.BytesIO()
        self.per_pair.to_parquet(buffer, index=False, compression="zstd")
        write_bytes(path.with_suffix(".parquet"), buffer.getvalue())
        write_json(path, self.to_dict())
        return path

    @classmethod
    def read(cls, path: str | Path) -> "BlimpResult":
        """Open what `save` wrote, by the path of the JSON or the parquet file. What ships has no sentences;
        `workbench.evals.compact.with_sentences` adds them.

        Raises:
            DataError: one of the two is missing or damaged.
        """
        import pandas as pd

        path = Path(path).with_suffix(".json")
        value, table = read_json(path), path.with_suffix(".parquet")
        try:
            names = {field.name for field in dataclasses.fields(cls)} - {"per_pair", "protocol"}
            protocol = PROTOCOLS[value["protocol"]["name"]]
            frame = widened(pd.read_parquet(table), protocol.tie)
            return cls(per_pair=frame, protocol=protocol, **{name: value[name] for name in names})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} and {table.name} are no saved result ({' '.join(str(error).split())[:120]}); "
                "score the run again."
            ) from None

    def pair(self, paradigm: str, pair_id: SupportsIndex) -> Any:
        """The row of one pair.

        Raises:
            InputError: there is no such pair.
        """
        frame = self.per_pair
        found = frame[(frame.paradigm == paradigm) & (frame.pair_id == int(pair_id))]
        if found.empty:
            raise InputError(f"no pair {pair_id} of paradigm {paradigm!r} in {self.title}.")
        return found.iloc[0]
