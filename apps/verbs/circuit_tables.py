"""The tables of `workbench circuit`. Not a verb."""

from typing import TYPE_CHECKING, Any

from workbench.console import clean, print_table

if TYPE_CHECKING:
    from workbench.interp.matrices import ComponentFamily, ComponentHistory
    from workbench.interp.matrix import ComponentMatrix

DETAILED = 3
"""So many paradigms get a table each; more get a line each."""


def matrix(found: "ComponentMatrix", top: int) -> None:
    """Print the components that matter: a table for each paradigm if there are few, else a line."""
    print(f"{clean(found.title)}\n")
    if len(found.paradigms) <= DETAILED:
        for paradigm in found.paradigms:
            _paradigm(found, paradigm, top)
    else:
        _overview(found)


def _overview(found: "ComponentMatrix") -> None:
    counts = found.pairs.paradigm.value_counts().to_dict()
    strongest = {method: _strongest(found, method) for method in found.methods}
    rows = []
    for paradigm in found.paradigms:
        row: list[Any] = [paradigm.removeprefix("embedded_"), counts[paradigm]]
        row.append(f"{100 * found.accuracy[paradigm]:.0f} %")
        for method in found.methods:
            best = strongest[method].get(paradigm)
            row += ["–", "–"] if best is None else [best["component"], _with_interval(best)]
        rows.append(row)
    header = ["strongest in each paradigm", "pairs", "right"]
    for method in found.methods:
        header += [method, "nats [95 % interval]"]
    print_table(header, rows)
    print(
        "\nPositive nats favour the grammatical sentence. A dash: no head or MLP differs from 0 (q < 0.05, "
        "corrected\nover all cells of the method), or too few pairs can be patched. --paradigm NAME shows "
        "one whole."
    )


def _strongest(found: "ComponentMatrix", method: str) -> dict[str, dict[str, Any]]:
    frame = found.to_frame().query("method == @method and kind in ('head', 'mlp') and q < 0.05")
    rows = sorted(frame.to_dict("records"), key=lambda row: abs(row["effect"]))
    return {row["paradigm"]: row for row in rows}


def _paradigm(found: "ComponentMatrix", paradigm: str, top: int) -> None:
    tables = {method: found.of(paradigm, method).set_index("component") for method in found.methods}
    order = tables["ablate" if "ablate" in tables else found.methods[0]].index
    order = [*order, *(name for table in tables.values() for name in table.index if name not in order)]
    mine = found.pairs.query("paradigm == @paradigm")
    usable = int((mine.usable == "usable").sum())
    words = f"{clean(paradigm)}: {len(mine)} pairs, {100 * mine.correct.mean():.1f} % right"
    patched = {"patch", "noise", "denoise"} & set(found.methods)
    print(words + (f", {usable} can be patched" if patched else ""))
    if usable < len(mine) and patched:
        why = mine.query("usable != 'usable'").usable.value_counts()
        print("  the others: " + ", ".join(f"{count} {reason}" for reason, count in why.items()))
    rows = []
    for name in dict.fromkeys(order[:top]):
        row = [name]
        for table in tables.values():
            row.append(_with_interval(table.loc[name]) if name in table.index else "–")
        if "ablate" in tables:
            line = tables["ablate"]
            row += [
                str(int(line.loc[name, key])) if name in line.index else "–" for key in ("lost", "gained")
            ]
        rows.append(row)
    header = ["component", *(f"{method}, nats" for method in tables)]
    print_table([*header, *(["lost", "gained"] if "ablate" in tables else [])], rows)
    print()


def _with_interval(row: Any) -> str:
    if row["effect"] != row["effect"]:
        return "–"
    value = f"{row['effect']:+.2f}"
    return value if row["low"] != row["low"] else f"{value} [{row['low']:+.2f}, {row['high']:+.2f}]"


def pair_list(found: "ComponentMatrix", component: str, method: str, top: int) -> None:
    """Print the pairs that a component helps most, and those that it harms most."""
    frame = found.explained(component, method=method)
    helped, harmed = (
        frame.query("effect > 0").head(top),
        frame.query("effect < 0").sort_values(by="effect").head(top),
    )
    for what, some in (("favours", helped), ("disfavours", harmed)):
        print(f"\n{clean(component)} {what} the grammatical sentence most ({method}):")
        rows = [
            (
                row["sentence_good"], row["sentence_bad"], f"{row['effect']:+.2f}", f"{row['margin']:+.2f}",
                "yes" if row["decides"] else "",
            )
            for row in some.to_dict("records")
        ]  # fmt: skip
        print_table(("grammatical", "not", "nats", "margin", "decides"), rows, left=2)


def failing(found: "ComponentMatrix", method: str, top: int) -> None:
    """Print where a component does something else in pairs that fail than in pairs that pass."""
    frame = found.failing(method)
    records = frame.query("low > 0 or high < 0").to_dict("records")
    records.sort(key=lambda row: -abs(row["difference"]))
    print(
        f"\npassing against failing pairs, mean {method} effect, where the difference's interval excludes 0:"
    )
    rows = [
        (
            row["paradigm"], row["component"], row["n_right"], row["n_wrong"], f"{row['right']:+.2f}",
            f"{row['wrong']:+.2f}", f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]",
        )
        for row in records[:top]
    ]  # fmt: skip
    header = ("paradigm", "component", "right", "wrong", "nats in right", "in wrong", "difference")
    print_table(header, rows, left=2) if rows else print("nowhere.")


def family(found: "ComponentFamily") -> None:
    """Print how many components carry each model's effects, and how deep they lie."""
    print(
        f"\nfamily, {found.method}: heads and MLPs that carry 50 and 90 % of all effects, mean over paradigms"
    )
    counts, depths = found.counts(), found.depths()
    names = [name for name in counts if name not in ("run", "paradigm")]
    rows = []
    for run in found.runs:
        means = counts.query("run == @run")[names].mean().tolist()
        mine = depths.query("run == @run")
        where = [f"{100 * share:.0f} %" for share in mine.groupby("from").share.sum().tolist()]
        heads = float(mine.query("kind == 'head'").share.sum())
        rows.append([run, *(f"{value:.1f}" for value in means), f"{100 * heads:.0f} %", *where])
    starts = sorted(depths["from"].unique())
    ends = [*starts[1:], 1.0]
    spans = [f"depth {start:.2g}–{end:.2g}" for start, end in zip(starts, ends, strict=True)]
    print_table(["run", *map(str, names), "in heads", *spans], rows)


def history(found: "ComponentHistory", top: int) -> None:
    """Print when each paradigm's strongest components took it over."""
    frame = found.takeovers()
    print(f"\ntaken over, {found.method}: the checkpoint from which on the interval excludes 0")
    rows = []
    for _, group in frame.groupby("paradigm", sort=False):
        for row in group.head(top).to_dict("records"):
            name = row["paradigm"].removeprefix("embedded_")
            then, share = f"{100 * row['accuracy']:.0f} %", f"{100 * row['share']:.0f} %"
            rows.append((name, row["component"], row["step"], then, _with_interval(row), share))
    header = ("paradigm", "component", "step", "right then", "nats at the end", "share at the end")
    print_table(header, rows, left=2) if rows else print("nothing was.")
