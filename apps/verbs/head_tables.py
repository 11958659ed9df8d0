"""Tables of heads' weights for `workbench heads`: circuits, composition, and one head's card. Not a verb."""

from typing import TYPE_CHECKING, Any

from workbench.console import number, print_table

if TYPE_CHECKING:
    from workbench.interp.components import Component
    from workbench.interp.head_circuits import Composition
    from workbench.interp.heads import HeadScores


def print_circuits(found: "HeadScores", pairs: Any) -> None:
    """A row for each head: copying and the top pairs of its two circuits."""
    rows = []
    for (layer, head), part in pairs.groupby(["layer", "head"]):
        at = list(found.layers).index(layer)
        shown = [_shown(part[part.circuit == name], 3) for name in ("OV", "QK")]
        rows.append([f"L{layer}H{head}", found.classes[at, head], f"{found.copying[at, head]:+.2f}", *shown])
    print("circuits through the vocabulary (OV: attended → raised; QK: query → key)\n")
    print_table(["head", "class", "copying", "OV", "QK"], rows, left=5)


def print_composition(found: "Composition", count: int = 12) -> None:
    """The strongest compositions beside random heads."""
    frame: Any = found.to_frame()
    chance = ", ".join(
        f"{kind} {mean:.3f} (97.5 %: {high:.3f})"
        for kind, mean, high in zip("QKV", found.random, found.random_high, strict=True)
    )
    print(f"composition of earlier and later heads; random heads of the same widths: {chance}\n")
    if frame.empty:
        print("no head has an earlier one: the model has one layer with attention.")
        return
    rows = [
        [f"L{row.earlier_layer}H{row.earlier_head} → L{row.later_layer}H{row.later_head}", row.kind,
         number(row.value), number(row.random), "above" if row.value > row.random_high else "no more"]
        for row in frame.head(count).itertuples()
    ]  # fmt: skip
    print_table(["heads", "by", "value", "random", "than chance"], rows, left=2)
    above = int((frame.value > frame.random_high).sum())
    print(f"\n{above} of {len(frame)} are above what 97.5 % of random heads have.")


def print_card(found: "HeadScores", part: "Component", pairs: Any, mixed: "Composition") -> None:
    """All that is known of one head."""
    at, head = list(found.layers).index(part.layer), part.unit
    print(f"{part.label}: {found.classes[at, head]}\n")
    base = found.baseline
    rows = []
    for index, name in enumerate(found.names):
        one = found.scores
        value, low, high = (float(x[index, at, head]) for x in (one.value, one.low, one.high))
        rows.append(
            [name, number(value, 2), f"{low:.2f} to {high:.2f}", number(float(one.uniform[index, at]), 2),
             number(float(base[index, at, head]), 2), number(float(found.excess[index, at, head]), 2)]
        )  # fmt: skip
    print_table(["score", "value", "interval", "uniform", "baseline", "excess"], rows)
    profile = found.profile.value[:, at, head]
    told = "  ".join(f"{d}: {value:.2f}" for d, value in zip(found.offsets, profile, strict=True))
    print(f"\nattention by distance  {told}")
    print(f"copying  {found.copying[at, head]:+.2f}, untrained up to {found.copying_untrained.max():+.2f}\n")
    for name, words in (("OV", "attended → raised"), ("QK", "query → key")):
        print(f"{name} ({words})  {_shown(pairs[pairs.circuit == name], 10)}")
    frame: Any = mixed.to_frame()
    for words, mine in (
        ("reads", (frame.later_layer == part.layer) & (frame.later_head == head)),
        ("is read by", (frame.earlier_layer == part.layer) & (frame.earlier_head == head)),
    ):
        strongest = frame[mine & (frame.value > frame.random_high)].head(4)
        side = "earlier" if words == "reads" else "later"
        told = ", ".join(
            f"L{row[f'{side}_layer']}H{row[f'{side}_head']} ({row['kind']} {row['value']:.2f}, "
            f"random {row['random']:.2f})"
            for row in strongest.to_dict("records")
        )
        print(f"{words}  {told or 'nothing above chance'}")


def _shown(pairs: Any, count: int) -> str:
    return ", ".join(f"{one.row_token!r}→{one.column_token!r}" for one in pairs.head(count).itertuples())
