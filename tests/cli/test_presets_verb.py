"""`workbench presets`: the table, one preset whole, exact counts, JSON."""

import json
import os
import sys

import pytest

from apps.commands.presets import brief
from workbench.model.config import PRESETS, SOURCES, count_parameters, preset


def table(out):
    """Header and rows of a printed table, cut at the rule's gaps."""
    lines = out.splitlines()
    ends, place = [], 0
    for part in lines[1].split(" "):
        ends.append((place, place + len(part)))
        place += len(part) + 1

    def cells(line):
        return [line[start:end].strip() for start, end in ends]

    return cells(lines[0]), [cells(line) for line in lines[2 : 2 + len(PRESETS)]]


def test_all_columns_of_the_big_table(workbench):
    said = workbench("presets")
    assert (said.code, said.err) == (0, "")
    header, rows = table(said.out)
    assert header == [
        "preset", "type", "objective", "tokenizer", "vocabulary", "embeddings", "attention", "activation",
        "parameters", "embedding", "other", "d_model", "layers", "heads", "FLOPs/token",
    ]  # fmt: skip
    assert [row[0] for row in rows] == list(PRESETS)
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert found["gpt-neo-9m"]["attention"] == "causal 4x128 windows all/256"
    assert found["stories260k"]["attention"] == "causal 8/4x8"
    assert found["stories15m"]["activation"] == "SwiGLU"
    assert found["albert-base"]["embeddings"] == "factorised 128, learned"
    assert found["bert-base"]["type"] == "encoder"
    for name, row in found.items():
        total, embedding, other = (
            int(row[key].replace(",", "")) for key in ("parameters", "embedding", "other")
        )
        assert total == embedding + other == preset(name).n_params


def test_120_columns_are_enough(workbench, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((120, 40)))
    said = workbench("presets")
    lines = said.out.splitlines()
    assert max(map(len, lines)) <= 120
    header, rows = table(said.out)
    assert header[-6:] == ["params", "embed", "other", "d_model", "layers", "FLOPs"]
    assert rows[list(PRESETS).index("gpt2")] == [
        "gpt2", "decoder", "BPE 50,257", "tied, learned", "12x64", "GELU", "124M", "39.4M", "85.1M", "768", "12", "798M",
    ]  # fmt: skip
    assert "8/4x8 has 4 heads" in said.out, "the short forms are explained"
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((250, 40)))
    assert "FLOPs/token" in workbench("presets").out, "a wide terminal gets every column"


def test_exact_counts_part_by_part(workbench):
    header, rows = table(workbench("presets", "--exact").out)
    for row in rows:
        parts = count_parameters(preset(row[0]))
        numbers = [int(cell.replace(",", "")) for cell in row[3:-1]]
        assert dict(zip(header[3:-1], numbers, strict=True)) == parts
        assert row[1] == f"{sum(parts.values()):,}"
        assert row[2] in (row[1], "–")
    one = workbench("presets", "gpt2", "--exact").out.splitlines()
    assert len(one) == 3
    assert "124,439,808" in one[2]


@pytest.mark.parametrize("name", PRESETS)
def test_one_preset_whole(name, workbench):
    said = workbench("presets", name)
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 120
    words = said.out.split()
    for field in preset(name).to_dict():
        assert any(word.startswith(f"{field}=") for word in words), field
    assert SOURCES[name].citation.split()[0] in words
    assert f"workbench train --preset {name}" in said.out


def test_what_it_prints_can_be_set_again(workbench):
    from workbench.runs.config import resolve

    for name in ("gpt-neo-9m", "elc-bert-small", "stories260k"):
        words = workbench("presets", name).out.split("set by the preset:")[1].split("train it")[0].split()
        assignments = [f"model.{word}" for word in words if "=" in word and not word.endswith("=null")]
        assert resolve({}, None, assignments).model == preset(name)


def test_json(workbench):
    found = json.loads(workbench("presets", "--json").out)
    assert [record["name"] for record in found] == list(PRESETS)
    one = json.loads(workbench("presets", "roberta-9m", "--json").out)
    assert one in found
    assert one["parameters"] == one["published_parameters"] == sum(one["parts"].values()) == 9_863_952
    assert preset("roberta-9m") == type(preset("nano")).from_dict(one["config"])


def test_mistakes(workbench):
    said = workbench("presets", "gtp2")
    assert (said.code, said.out) == (2, "")
    assert said.err == "Error: no preset is called 'gtp2'. Did you mean 'gpt2'?\n"
    assert "give one of them" in workbench("presets", "--json", "--exact").err


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (236, "0.236k"),
        (9_999, "10.0k"),
        (545_000, "545k"),
        (999_500, "1.00M"),
        (1.0809e9, "1.08G"),
        (3e15, "3,000T"),
    ],
)
def test_short_numbers(number, text):
    assert brief(number) == text
