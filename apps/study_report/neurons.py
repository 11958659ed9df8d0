"""The part of the study's page about neurons."""

from apps.study_report.parts import Entry, interval, num, painted, sure, table
from workbench.html_page import html

WHY = {
    "first": "the layer's first",
    "second": "the layer's second",
    "greatest total": "greatest total activation",
    "random": "drawn at random",
    "protagonist": "chosen for the protagonist's first mention",
}


def neurons_part(found: Entry) -> str:
    """Cards of the neurons that the paper shows, of random ones, and of an untrained copy's."""
    title = "<h2>What neurons fire on</h2>"
    if not found["neurons"]:
        why = html(found["omitted"].get("neurons", "nothing to show."))
        return f'<section>{title}<p class="quiet">Left out: {why}</p></section>'
    cards = [one for one in found["neurons"] if one["why"] != "protagonist"]
    own, copies = ([one for one in cards if one["trained"] is kind] for kind in (True, False))
    layer = own[0]["label"].split("N")[0]
    return (
        f"<section>{title}<p>As in the paper: of {html(layer)}, the layer one before the last, the first two "
        "neurons and the one whose activations add up to most. A token is the darker the stronger the "
        "neuron is there, and underlined above half of its greatest activation on these stories. Beside the "
        "passages that excite a neuron most stands one at random, and beside the paper's choice random "
        "neurons and an untrained copy's: only what differs from those tells anything.</p>"
        f'{_labels(found)}<div class="cards">{"".join(map(_card, own))}</div>'
        f"<h3>The same of an untrained copy</h3>"
        f'<div class="cards">{"".join(map(_card, copies))}</div></section>'
    )


def _labels(found: Entry) -> str:
    labels = found["labels"]
    if labels is None:
        return ""
    copy = "" if labels["untrained"] is None else (
        f"; the bar is set so that {num(labels['untrained'], 0, percent=True)} of an untrained copy's "
        "neurons pass"
    )  # fmt: skip
    return (
        "<p>Every neuron of the blocks shown was tried on words, parts of speech, places in the story, "
        "quotations and names as labels, chosen on half of the stories and tested on the other half: "
        f"{num(labels['hold'], 0)} of {num(labels['neurons'], 0)} have a label that holds (AUC of "
        f"{num(labels['least_auc'], 1)} or more, corrected for all tries{copy}).</p>"
    )


def _card(one: Entry) -> str:
    kind = "" if one["trained"] else " copy"
    effect = one["loss"]
    told = ""
    if effect is not None:
        words = "" if sure(effect) else " (not to be told from nothing)"
        told = f" Without it the loss changes by {interval(effect, 4, sign=True)} nats a token{words}."
    label = _label(one.get("finding"))
    raised = ", ".join(f"<q>{html(token.strip() or token)}</q>" for token in one["promoted"])
    passages = "".join(_passage(passage, one) for passage in one["passages"])
    return (
        f'<article class="card{kind}"><h3>{html(one["label"])} '
        f"<small>{html(WHY.get(one['why'], one['why']))}</small></h3>"
        f'<p class="quiet">Active at {num(one["active"], 0, percent=True)} of the tokens, above half of its '
        f"greatest ({num(one['greatest'])}) at {num(one['lit'], 1, percent=True)}; mean "
        f"{num(one['mean'], 3)}.{told}{label} Raises {raised}.</p>{passages}</article>"
    )


def _label(label: Entry | None) -> str:
    if label is None:
        return ""
    ends = {"value": label["auc"], "low": label["low"], "high": label["high"]}
    holds = "it holds" if label["holds"] else "it does not hold"
    return (
        f" Best label: <b>{html(label['feature'])}</b>, AUC {interval(ends)} on held-out stories, where 95 % "
        f"of an untrained copy's neurons stay under {num(label['usual'])}: {holds}."
    )


def _passage(passage: Entry, one: Entry) -> str:
    most = one["greatest"] or 1
    text = painted(
        passage["tokens"],
        [(value or 0) / most for value in passage["values"]],
        [(value or 0) > one["threshold"] for value in passage["values"]],
    )
    told = {"top": "", "random": "at random", "first mention": "a first mention"}[passage["kind"]]
    return f'<div class="passage">{f"<small>{told}</small>" if told else ""}{text}</div>'


def protagonist_part(found: Entry) -> str:
    """The search for the first-mention neuron and its controls."""
    title = "<h2>A neuron for the protagonist</h2>"
    hero = found["protagonist"]
    if hero is None:
        why = html(found["omitted"].get("protagonist", "nothing to show."))
        return f'<section>{title}<p class="quiet">Left out: {why}</p></section>'
    names = {"best": "best neuron", "untrained": "best of an untrained copy", "position": "position alone"}
    rows = []
    for what, words in names.items():
        one = hero[what]
        near = {"value": one["auc"], "low": one["low"], "high": one["high"]}
        later = {"value": one["later_auc"], "low": one["later_low"], "high": one["later_high"]}
        name = words if what == "position" else f"{words}, {html(one['label'])}"
        rows.append([name, interval(near), interval(later)])
    best, copy = hero["best"], hero["untrained"]
    ahead = (best["low"] or 0) > (copy["high"] or 1)
    beyond = (best["later_low"] or 0) > (copy["later_high"] or 1)
    if ahead and beyond:
        verdict = "The neuron exists in this model, and training made it."
    elif ahead or beyond:
        verdict = (
            "There is a trace of such a neuron: in one of the two tests it is ahead of the untrained copy."
        )
    else:
        verdict = "No such neuron: the best one is not clearly ahead of what an untrained copy has."
    cards = "".join(_card(one) for one in found["neurons"] if one["why"] == "protagonist")
    return (
        f"<section>{title}<p>The paper came upon a neuron that fires when the protagonist is first named. "
        f"Here all {num(hero['neurons'], 0)} neurons are searched: the one is taken that tells first "
        f"mentions best on half of {num(hero['stories'], 0)} stories, and judged on the other half. An AUC "
        f"of 0.5 is chance. {verdict}</p>"
        + table(
            ["detector", "first mention against tokens nearby", "against later mentions of the name"], rows
        )
        + '<p class="quiet">Later mentions are told from first ones by position alone, so only the two '
        "columns together make a first-mention neuron. An AUC compares a mention with ordinary tokens: the "
        "passages that excite a neuron most may be of another kind. Protagonists: "
        f"{html(', '.join(hero['names']))}.</p>"
        f'<div class="cards">{cards}</div></section>'
    )
