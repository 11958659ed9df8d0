"""Style sheet and the one small script of the study's page."""

from apps.look.palette import DARK, LIGHT, Palette


def _variables(palette: Palette) -> str:
    names = ("page", "panel", "ink", "muted", "line", "good", "bad")
    parts = [f"--{name}: {getattr(palette, name)};" for name in names]
    return " ".join([*parts, f"--heat: {palette.sequential[2]};"])


STYLE = (
    f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
@media print {{ :root {{ color-scheme: light; {_variables(LIGHT)} }} }}
"""
    + """
* { box-sizing: border-box; }
html { background: var(--page); color: var(--ink); -webkit-text-size-adjust: 100%; }
body {
  max-width: 62rem; margin: 0 auto; padding: 2.2rem 1.1rem 4rem;
  font: 1rem/1.5 "Source Sans 3", "Source Sans Pro", system-ui, sans-serif;
}
h1 {
  font-size: 2rem; line-height: 1.15; margin: 0 0 0.4rem; letter-spacing: -0.015em;
  overflow-wrap: anywhere;
}
h2 { font-size: 1.4rem; line-height: 1.25; margin: 3rem 0 0.5rem; letter-spacing: -0.01em; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 0.3rem; }
p, ul { margin: 0.4rem 0 0.8rem; max-width: 46rem; }
li { margin: 0.25rem 0; }
small, .quiet, figcaption { color: var(--muted); font-size: 0.85rem; }
.ci { font-size: 0.78rem; white-space: nowrap; }
data { font-variant-numeric: tabular-nums; }
.short { background: var(--panel); border-radius: 10px; padding: 0.7rem 1.2rem; margin: 1.4rem 0; }
.short ul { padding-left: 1.1rem; max-width: none; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 0.8rem;
  margin: 1rem 0;
}
.facts div { border: 1px solid var(--line); border-radius: 10px; padding: 0.7rem 0.9rem; }
.facts b { display: block; font-size: 1.5rem; line-height: 1.25; font-weight: 650; }
.facts b .ci { font-weight: 400; display: block; }
h3 small { font-weight: 400; }
blockquote {
  margin: 0.6rem 0 1rem; padding: 0.2rem 0 0.2rem 1rem; border-left: 3px solid var(--line); max-width: 46rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font-family: Georgia, "Noto Serif", serif;
}
blockquote b { font-weight: 600; }
.wide { overflow-x: auto; margin: 0.6rem 0 1rem; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.28rem 0.7rem 0.28rem 0; text-align: left; vertical-align: middle; }
thead th { color: var(--muted); font-weight: 500; font-size: 0.8rem; vertical-align: bottom; }
tbody tr { border-top: 1px solid var(--line); }
tbody th { font-weight: 600; white-space: nowrap; }
td { white-space: nowrap; }
.n { text-align: right; }
td .ci { display: inline-block; min-width: 6.4em; text-align: right; }
td.n:has(svg) { min-width: 7rem; }
.yes { font-weight: 650; }
.no { color: var(--muted); }
.tag {
  border: 1px solid var(--line); border-radius: 999px; padding: 0.05rem 0.55rem; font-size: 0.8rem;
  white-space: nowrap;
}
.tag.yes { border-color: var(--good); color: var(--good); }
svg.range { width: 100%; min-width: 7rem; height: 1.1rem; display: block; overflow: visible; }
svg.range .bar { stroke: var(--good); stroke-width: 2; }
svg.range circle { fill: var(--good); }
svg.range .also { fill: var(--page); stroke: var(--muted); }
svg.range .ref { stroke: var(--muted); stroke-dasharray: 2 2; }
svg.columns { width: 5.5rem; height: 1.5rem; display: block; border-bottom: 1px solid var(--line); }
svg.columns rect { fill: var(--good); }
svg.curve { width: 100%; max-width: 44rem; height: auto; }
svg.curve polyline { fill: none; stroke: var(--good); stroke-width: 2; }
svg.curve .axis { fill: none; stroke: var(--line); }
svg.curve text { fill: var(--muted); font-size: 12px; font-family: inherit; }
figure { margin: 0.8rem 0; }
.stack { display: flex; width: 9rem; height: 0.8rem; border-radius: 3px; overflow: hidden; }
.stack i, .key i { display: inline-block; }
.key i {
  width: 0.8rem; height: 0.8rem; border-radius: 3px; margin: 0 0.3rem 0 0.9rem; vertical-align: -0.08rem;
}
.key i:first-child { margin-left: 0; }
i.distance { background: var(--good); }
i.rest { background: color-mix(in srgb, var(--muted) 40%, transparent); }
.painted {
  font-family: Georgia, "Noto Serif", serif; line-height: 1.75; white-space: pre-wrap;
  overflow-wrap: anywhere;
  margin: 0.25rem 0; max-width: 52rem;
}
.painted span, .painted button {
  background: color-mix(in srgb, var(--heat) calc(var(--v, 0) * 100%), transparent); border-radius: 3px;
  padding: 0.1em 0;
}
.painted .lit { text-decoration: underline; text-decoration-thickness: 2px; text-underline-offset: 0.22em; }
.painted button {
  font: inherit; color: inherit; border: 0; cursor: pointer; white-space: pre-wrap; display: inline;
}
.painted button[aria-pressed=true] { outline: 2px solid var(--bad); }
.painted button:focus-visible { outline: 2px solid var(--ink); }
.query { border: 1px solid var(--line); border-radius: 10px; padding: 0.4rem 0.9rem; margin: 0.8rem 0; }
.heads {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(27rem, 100%), 1fr));
  gap: 0.2rem 2rem;
}
.heads h3, .card h3 { margin-top: 1rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(27rem, 100%), 1fr)); gap: 0.9rem; }
.card { border: 1px solid var(--line); border-radius: 10px; padding: 0 1rem 0.7rem; break-inside: avoid; }
.card.copy { border-style: dashed; }
.card .painted {
  font-size: 0.93rem; line-height: 1.6; border-top: 1px solid var(--line); padding-top: 0.35rem;
}
.passage small { display: block; margin-top: 0.4rem; }
table.heat td {
  text-align: right; padding: 0.2rem 0.45rem; min-width: 3.1rem;
  background: color-mix(in srgb, var(--c, transparent) calc(var(--v, 0) * 65%), transparent);
  font-size: 0.82rem;
}
table.heat th { padding-right: 0.6rem; }
table.heat tbody th { position: sticky; left: 0; background: var(--page); font-weight: 500; }
table.heat .up { --c: var(--good); }
table.heat .down { --c: var(--bad); }
table.heat .unsure { color: var(--muted); }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 0.8rem; }
@media (max-width: 30rem) {
  body { padding: 1.2rem 0.8rem 3rem; }
  h1 { font-size: 1.6rem; }
  .short { padding: 0.4rem 0.9rem; }
}
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  h2, h3 { break-after: avoid; }
  tr, figure, blockquote, .facts div, .short { break-inside: avoid; }
  .wide { overflow: visible; }
  table { font-size: 0.72rem; }
  table.heat, table.heat th, table.heat td { font-size: 5.2pt; padding: 0.1rem 0.1rem; min-width: 0; }
  table.heat thead th { max-width: 2.2rem; white-space: normal; }
  .screen { display: none; }
}
"""
)

SCRIPT = """
const shown = JSON.parse(document.getElementById("pattern").textContent);
const buttons = [...document.querySelectorAll(".query button")];
const mosts = [...document.querySelectorAll(".heads .most")];
const texts = [...document.querySelectorAll(".heads .painted")];
function show(query) {
  buttons.forEach((one, at) => one.setAttribute("aria-pressed", at === query));
  texts.forEach((text, head) => {
    const row = shown[head][query];
    const most = Math.max(...row);
    mosts[head].textContent = most.toFixed(2);
    [...text.children].forEach((one, key) => {
      one.style.setProperty("--v", (row[key] || 0) / most);
      one.title = (100 * (row[key] || 0)).toFixed(0) + " %";
    });
  });
}
buttons.forEach((one, at) => one.addEventListener("click", () => show(at)));
"""
