"""The style sheet of the page's own HTML; its colours are the palette's, as variables."""

from apps.look.palette import Palette

_RULES = """
.stMainBlockContainer { padding-top: 4rem; padding-bottom: 3rem; max-width: 1300px; }

.wb-verdict { font-size: 1.75rem; line-height: 1.25; font-weight: 600; letter-spacing: -0.01em; margin: 0; }
.wb-verdict .good { color: var(--wb-good); }
.wb-verdict .bad { color: var(--wb-bad); }
.wb-verdict, .wb-where { overflow-wrap: anywhere; }
.wb-where { color: var(--wb-muted); font-size: 0.9rem; margin: 0.3rem 0 0; }

.wb-pair { display: flex; flex-wrap: wrap; row-gap: 0.9rem; margin: 0.2rem 0 0; }
.wb-col { display: grid; grid-template-rows: 2.4rem 2.4rem 1.5rem; text-align: center; }
.wb-text .wb-col { grid-template-rows: 2.5rem; }
.wb-cell {
  display: flex; flex-direction: column; justify-content: center;
  padding: 0 0.5rem; min-width: 2.6rem; line-height: 1.1; font-size: 1rem; white-space: pre;
  border: 1px solid var(--wb-page); border-radius: 5px;
}
.wb-cell small { font-size: 0.68rem; opacity: 0.8; font-variant-numeric: tabular-nums; }
.wb-cell .dot { opacity: 0.35; }
.wb-cell.none { color: var(--wb-muted); opacity: 0.45; }
.wb-cell.here { border-color: var(--wb-ink); font-weight: 600; }
.wb-sum {
  color: var(--wb-muted); font-size: 0.78rem; padding-top: 0.25rem; font-variant-numeric: tabular-nums;
}
.wb-sum.good { color: var(--wb-good); font-weight: 600; }
.wb-sum.bad { color: var(--wb-bad); font-weight: 600; }
.wb-names .wb-cell, .wb-names .wb-sum {
  color: var(--wb-muted); font-size: 0.82rem; text-align: right;
  align-items: flex-end; padding: 0 0.5rem 0 0; min-width: 7.6rem;
}
.wb-names .wb-sum { padding-top: 0.25rem; }

.wb-early p { font-size: 1.1rem; margin: 0.4rem 0; overflow-wrap: anywhere; }
.wb-early b { color: var(--wb-muted); font-weight: 400; margin-right: 0.3rem; }
.wb-bars i { display: block; height: 1.6rem; border-radius: 5px; background: var(--wb-line); opacity: 0.45;
  margin: 0.7rem 0; animation: wb-wait 1.6s ease-in-out infinite; }
.wb-bars i:nth-child(2n) { width: 72%; }
.wb-bars small { color: var(--wb-muted); }
@keyframes wb-wait { 50% { opacity: 0.2; } }
@media (prefers-reduced-motion: reduce) { .wb-bars i { animation: none; } }

.wb-written {
  font-size: 1.05rem; line-height: 1.95; margin: 0.2rem 0 0; overflow-wrap: anywhere; white-space: pre-wrap;
}
.wb-written .wb-given { color: var(--wb-muted); }
.wb-written .wb-token { border-radius: 4px; padding: 0.16rem 0; border: 1.5px solid transparent; }
.wb-written .wb-token.here { border-color: var(--wb-ink); }
.wb-written .dot { opacity: 0.45; }

.wb-key { color: var(--wb-muted); font-size: 0.8rem; margin: 0; }
.wb-key i {
  display: inline-block; width: 0.75rem; height: 0.75rem; border-radius: 3px;
  vertical-align: -0.06rem; margin: 0 0.25rem 0 0.8rem;
}
.wb-key i:first-child { margin-left: 0; }

.wb-map { display: grid; gap: 3px; align-items: stretch; margin: 0.1rem 0 0; }
.wb-map b {
  color: var(--wb-muted); font-size: 0.78rem; font-weight: 400; align-self: center; text-align: center;
}
.wb-map button {
  height: 2.05rem; min-width: 0; padding: 0; border: 0; border-radius: 4px; cursor: pointer; overflow: hidden;
  font: inherit; font-size: 0.8rem; font-variant-numeric: tabular-nums; white-space: nowrap;
}
.wb-map button[aria-pressed="true"] { box-shadow: 0 0 0 2.5px var(--wb-ink); }
.wb-map button:focus-visible { outline: 2.5px solid var(--wb-good); outline-offset: 1px; }
[class*="st-key-picks-"] { display: none; }

.wb-equation {
  display: flex; flex-wrap: wrap; gap: 0.3rem 0.55rem; align-items: baseline; margin: 0.2rem 0 0;
  font-variant-numeric: tabular-nums;
}
.wb-equation span { white-space: nowrap; }
.wb-equation small { color: var(--wb-muted); font-size: 0.78rem; }
.wb-equation .total { font-weight: 650; }

.wb-top { margin: 0; border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.wb-top td { padding: 0.22rem 0.2rem; border: 0; border-top: 1px solid var(--wb-line); font-size: 0.92rem; }
.wb-top tr:first-child td { border-top: 0; }
.wb-top td:first-child { white-space: nowrap; padding-right: 0.6rem; }
.wb-top td:nth-child(2) { text-align: right; white-space: nowrap; font-weight: 600; }
.wb-top td:nth-child(3) { color: var(--wb-muted); padding-left: 0.7rem; font-size: 0.84rem; }
.wb-passages { margin: 0; font-size: 0.95rem; line-height: 1.75; }
.wb-passages p { margin: 0 0 0.15rem; overflow-wrap: anywhere; padding-left: 3.6rem; text-indent: -3.6rem; }
.wb-passages .v {
  display: inline-block; width: 3rem; margin-right: 0.6rem; text-align: right; text-indent: 0;
  color: var(--wb-muted); font-size: 0.8rem; font-variant-numeric: tabular-nums;
}
.wb-passages .t { white-space: pre-wrap; border-radius: 3px; padding: 0.08rem 0; text-indent: 0; }
.wb-passages .here { outline: 1.5px solid var(--wb-ink); }
.wb-words { margin: 0; line-height: 2; }
.wb-words span { white-space: nowrap; margin-right: 0.9rem; }
.wb-words small { color: var(--wb-muted); font-variant-numeric: tabular-nums; }

.wb-top .good { color: var(--wb-good); }
.wb-top .bad { color: var(--wb-bad); }
"""


def stylesheet(palette: Palette) -> str:
    """All rules, with this palette's colours."""
    colours = {name: getattr(palette, name) for name in ("page", "ink", "muted", "line", "good", "bad")}
    variables = " ".join(f"--wb-{name}: {colour};" for name, colour in colours.items())
    return f":root {{ {variables} }}\n{_RULES}"
