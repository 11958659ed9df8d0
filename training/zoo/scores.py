"""A member's decisions on minimal pairs; results are remembered by weights and pairs, so that making the
family again scores only what is new."""

import dataclasses
import hashlib
import shutil
from typing import Any

from workbench.console import Progress
from workbench.data.cache import cache_root
from workbench.data.pairs import PairSet
from workbench.errors import DataError
from workbench.evals.blimp import MARGIN_BITS, BlimpResult, blimp, save_compact

FULL_BITS = 10
"""A float16's whole mantissa, for results that are remembered."""
PUBLISHED = "babylm-2023"
"""The protocol by which the models that ours are compared with were scored."""


@dataclasses.dataclass(frozen=True)
class Sets:
    """The pairs that members are scored on."""

    blimp: PairSet | None
    supplement: PairSet | None
    embedded: PairSet | None
    device: str = "cpu"
    """Where models are scored."""
    bits: int = MARGIN_BITS
    """Of the margins' mantissas."""


def score(
    run: Any, pairs: PairSet, protocol: str, weights: str, label: str, device: str = "cpu"
) -> BlimpResult:
    """Score a run, or read what was scored before.

    Args:
        run: the opened run.
        pairs: all of them are scored.
        protocol: a key of `PROTOCOLS`.
        weights: SHA-256 of the run's weights on disk.
        label: what the progress line is called.
        device: where the model runs meanwhile.
    """
    key = hashlib.sha256(f"{weights} {pairs.fingerprint} {protocol} {run.step} {run.name}".encode())
    place = cache_root() / "zoo-scores" / key.hexdigest()[:24]
    for file in (place / "blimp").glob("*.json"):
        try:
            return BlimpResult.read(file)
        except DataError:
            shutil.rmtree(place, ignore_errors=True)
    line = Progress(f"{label} on {pairs.name}, {protocol}")

    def draw(fraction: float, message: str) -> None:
        if line.due():
            line.update(fraction, message)

    try:
        run.model.to(device)
        result = blimp(run, pairs, protocol, progress=draw)
    finally:
        line.close()
        run.model.to("cpu")
    return BlimpResult.read(save_compact(result, place, bits=FULL_BITS))  # alike the first time and later


def comparison(run: Any, sets: Sets, weights: str) -> dict[str, Any] | None:
    """The run by the published models' protocol: share right of each phenomenon of BLiMP and each task of the
    supplement, and the mean over all of them. None without both sets."""
    if sets.blimp is None or sets.supplement is None:
        return None
    found: dict[str, Any] = {"protocol": PUBLISHED}
    shares = []
    for name, pairs in (("blimp", sets.blimp), ("supplement", sets.supplement)):
        result = score(run, pairs, PUBLISHED, weights, run.name, sets.device)
        table = result.phenomena.accuracy
        found[name] = {str(key): round(float(share), 6) for key, share in table.items()}
        shares += list(found[name].values())
    return found | {"mean": sum(shares) / len(shares), "groups": len(shares)}


def in_brief(result: BlimpResult) -> dict[str, Any]:
    """A result as one row of metrics.jsonl: the overall share, its interval, and the phenomena."""
    mean = result.overall.paradigms
    return {
        "pairs": result.pairs,
        "protocol": result.protocol.name,
        "accuracy": mean.accuracy,
        "low": mean.low,
        "high": mean.high,
        "phenomena": {str(name): float(share) for name, share in result.phenomena.accuracy.items()},
    }
