"""The study of a run as one HTML page that needs nothing else: no network, and no script but a small one of
its own for the attention picture. It is written from study.json's values alone."""

import base64
import hashlib
import re
from html import unescape
from typing import Any

from apps.look.markup import script_json
from apps.study_report.grammar import matrix_part, paradigms_table
from apps.study_report.heads import MOST_HEADS, attention_part, heads_part
from apps.study_report.neurons import neurons_part, protagonist_part
from apps.study_report.parts import Entry, curve, interval, left_out, num, section, stack, sure, table
from apps.study_report.style import SCRIPT, STYLE
from workbench import html_page
from workbench.html_page import document, html

HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
POLICY = f"{html_page.POLICY}; script-src 'sha256-{HASH}'"


def study_page(found: Entry) -> str:
    """The whole document.

    Args:
        found: what `Study.to_dict` gave, or study.json holds.
    """
    name = _name(found)
    parts = [
        _head(found, name),
        _model(found),
        heads_part(found),
        attention_part(found),
        neurons_part(found),
        protagonist_part(found),
        matrix_part(found),
        _depth(found),
        _method(found),
    ]
    return document(f"{name}: a study", STYLE, f"{''.join(parts)}\n{_script(found)}", POLICY)


def _name(found: Entry) -> str:
    name = found["run"] or "a model"
    return name if found["step"] is None else f"{name}@{found['step']}"


def _script(found: Entry) -> str:
    if found["attention"] is None:
        return ""
    data = script_json(found["attention"]["pattern"][:MOST_HEADS])
    return f'<script type="application/json" id="pattern">{data}</script><script>{SCRIPT}</script>'


def _head(found: Entry, name: str) -> str:
    model = found["model"]["config"]
    kind = "causal" if model["attention"] == "causal" else "bidirectional"
    about = (
        f"A {kind} transformer with {num(found['model']['parameters'], 0)} parameters "
        f"({html(model['n_layers'])} blocks of width {html(model['d_model'])}, {html(model['n_heads'])} "
        f"heads each), read on {num(found['stories'], 0)} held-out stories."
    )
    quick = " This is a quick study: few stories and pairs, wide intervals." if found["quick"] else ""
    sentences = "".join(f"<li>{one}</li>" for one in short(found) if one)
    return (
        f"<header><h1>What is inside {html(name)}</h1><p>{about}{quick}</p>"
        f'<div class="short"><ul>{sentences}</ul></div></header>'
    )


def findings(found: Entry) -> list[str]:
    """The sentences at the head of the page, as plain text."""
    lines = (re.sub(r' <small class="ci">(.*?)</small>', r" (\1)", sentence) for sentence in short(found))
    return [unescape(re.sub(r"<[^>]+>", "", line)) for line in lines]


def short(found: Entry) -> list[str]:
    """The study in a few sentences."""
    loss, pairs = found["loss"], found["pairs"]
    told = [
        f"Its loss is {interval(loss)} nats a token; guessing all tokens alike costs {num(loss['uniform'])}.",
        f"It prefers the grammatical sentence in {interval(pairs, 1, percent=True)} of {num(pairs['n'], 0)} "
        f"minimal pairs; chance is {num(pairs['chance'], 0, percent=True)}, an untrained copy gets "
        f"{num(pairs['untrained'], 1, percent=True)}.",
    ]
    kinds = found["kinds"]
    if kinds:
        names = {
            "distance": "go mostly by distance",
            "semantic": "mostly by what the tokens are",
            "mixed": "by both",
            "uniform": "look almost evenly at everything",
        }
        said = ", ".join(f"{num(kinds[kind], 0)} {words}" for kind, words in names.items() if kinds.get(kind))
        told.append(f"Of its {len(found['heads'])} heads {said}.")
    for what, letter in (("part", ""), ("head", "H")):
        rows = [
            row for row in found["ablation"] if "N" not in row["component"] and letter in row["component"]
        ]
        if rows:
            worst = max(rows, key=lambda row: row["loss"]["value"])
            told.append(
                f"The {what} it needs most is {html(worst['component'])}: without it the loss rises by "
                f"{interval(worst['loss'], 3)} nats a token."
            )
    hero = found["protagonist"]
    if hero:
        best, copy = hero["best"], hero["untrained"]
        told.append(
            f"Neuron {html(best['label'])} tells the protagonist's first mention from tokens nearby with an "
            f"AUC of {num(best['auc'])} and from later mentions with {num(best['later_auc'])}; the best "
            f"neuron of an untrained copy reaches {num(copy['auc'])} and {num(copy['later_auc'])}."
        )
    copies = found["copies"].get("unigram") or found["copies"].get("uniform")
    if copies:
        change = {end: copies[name] for end, name in (("value", "mean"), ("low", "low"), ("high", "high"))}
        does = "It makes use of" if sure(change) and change["value"] < 0 else "It makes no clear use of"
        told.append(
            f"{does} having seen the same random tokens before: their loss changes by "
            f"{interval(change, sign=True)} nats the second time (induction)."
        )
    return told


def _model(found: Entry) -> str:
    loss, pairs, training = found["loss"], found["pairs"], found["training"]
    copy = {"value": pairs["untrained"], "low": pairs["untrained_low"], "high": pairs["untrained_high"]}
    facts = [
        ("loss, nats a token", interval(loss, 3),
         f"{num(loss['tokens'], 0)} tokens of {num(loss['stories'], 0)} stories; guessing all alike: "
         f"{num(loss['uniform'])}"),
        ("minimal pairs right", interval(pairs, 1, percent=True),
         f"chance {num(pairs['chance'], 0, percent=True)}; untrained copy {interval(copy, 1, percent=True)}"),
    ]  # fmt: skip
    if training.get("bits_per_byte") is not None:
        facts.append(
            ("bits a byte", num(training["bits_per_byte"], 3), "on the run's whole validation split")
        )
    if training.get("tokens_seen") is not None:
        data = html(training.get("data") or "its corpus")
        minutes = training.get("minutes")
        took = "" if not minutes else f", in {num(minutes, 1)} minutes"
        facts.append(("tokens read in training", num(training["tokens_seen"], 0), f"of {data}{took}"))
    tiles = "".join(
        f"<div><small>{name}</small><b>{value}</b><small>{more}</small></div>" for name, value, more in facts
    )
    points = [(row["step"], row["loss"]) for row in training.get("curve") or [] if row["loss"] is not None]
    sample = found["sample"]
    if sample is None:
        story = f"<h3>A story of its own</h3>{left_out(found, 'sample')}"
    else:
        prompt, text = sample["prompt"], sample["text"]
        body = f"<b>{html(prompt)}</b>{html(text[len(prompt) :])}" if text.startswith(prompt) else html(text)
        story = (
            f"<h3>A story of its own</h3><blockquote>{body}</blockquote>"
            f'<p class="quiet">In bold what it was given; temperature {num(sample["temperature"], 1)}, '
            f"seed {num(sample['seed'], 0)}.</p>"
        )
    return section(
        "The model and its training",
        f'<div class="facts">{tiles}</div>',
        curve(points, "training step", "validation loss, nats a token"),
        story,
        paradigms_table(found),
    )


def _depth(found: Entry) -> str:
    title = "How the prediction grows with depth"
    lens = found["lens"]
    if lens is None:
        return section(title, left_out(found, "lens"))
    worst = max(row["loss"] or 0 for row in lens)
    rows = [
        [html(row["point"]), stack([("distance", row["loss"] or 0)], worst), num(row["loss"]), num(row["kl"]),
         num(row["agreement"], 0, percent=True)]
        for row in lens
    ]  # fmt: skip
    first = next((row for row in lens if (row["agreement"] or 0) >= 0.5), lens[-1])
    return section(
        title,
        "<p>The logit lens reads the residual stream behind each block as if the model ended there. Behind "
        f"{html(first['point'])} it names the model's own first choice for "
        f"{num(first['agreement'], 0, percent=True)} of the tokens. Guessing all tokens alike costs "
        f"{num(found['loss']['uniform'])} nats: above that, the lens misleads.</p>",
        table(
            ["behind", "loss", "nats a token", "nats from the model's own prediction", "same first choice"],
            rows, left=2,
        ),
    )  # fmt: skip


def _method(found: Entry) -> str:
    omitted = "".join(f"<li>{html(stage)}: {html(why)}</li>" for stage, why in found["omitted"].items())
    config: dict[str, Any] = found["model"]["config"]
    rows = [[html(name), html(value)] for name, value in config.items() if value is not None]
    left = f"<h3>Left out</h3><ul>{omitted}</ul>" if omitted else ""
    return (
        "<footer><h2>How this was measured</h2><p>After Eldan &amp; Li 2023, TinyStories "
        "(arXiv:2305.07759), section 5, which shows heads and neurons of chosen models without scores. "
        "Added here: scores beside uniform attention and an untrained copy of the same configuration, 95 % "
        "intervals over stories or pairs (bootstrap; Wilson for shares; Student for component by paradigm), "
        "and ablation. Intervals speak of other text for this model, not of training it again. Seed "
        f"{num(found['seed'], 0)}. All numbers stand in study.json.</p>{left}<details><summary>Configuration "
        f"of the model</summary>{table(['field', 'value'], rows, left=2)}</details></footer>"
    )
