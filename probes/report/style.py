"""The page's style sheet: light and dark, from a telephone's width on, and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --panel: #f3f5f8; --ink: #1b222c; --muted: #5c6673; --line: #d5dae1;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #12161c; --panel: #1a2029; --ink: #e4e8ee; --muted: #98a3b2; --line: #39424f; }
}
@media print {
  :root { --page: #ffffff; --panel: #f3f5f8; --ink: #1b222c; --muted: #5c6673; --line: #d5dae1; }
}
* { box-sizing: border-box; }
html { background: var(--page); color: var(--ink); -webkit-text-size-adjust: 100%; }
body {
  max-width: 66rem; margin: 0 auto; padding: 2.2rem 1.1rem 4rem;
  font: 1rem/1.5 "Source Sans 3", "Source Sans Pro", system-ui, sans-serif;
}
h1 { font-size: 2rem; line-height: 1.15; margin: 0 0 0.3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 0.4rem; overflow-wrap: anywhere; }
h3 { font-size: 1.02rem; margin: 1.4rem 0 0.2rem; }
p { margin: 0.4rem 0 0.8rem; max-width: 48rem; overflow-wrap: anywhere; }
li { margin: 0.2rem 0; overflow-wrap: anywhere; }
figcaption { color: var(--muted); font-size: 0.85rem; }
.short { background: var(--panel); border-radius: 10px; padding: 0.6rem 1.2rem; margin: 1.2rem 0; }
.short ul { padding-left: 1.1rem; margin: 0.2rem 0; }
figure { margin: 1.2rem 0; }
img { max-width: 100%; height: auto; background: #ffffff; border-radius: 10px; }
.wide { overflow-x: auto; margin: 0.6rem 0 1rem; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.26rem 0.9rem 0.26rem 0; text-align: left; white-space: nowrap; }
th { color: var(--muted); font-weight: 500; font-size: 0.8rem; }
tbody tr { border-top: 1px solid var(--line); }
pre { font-size: 0.8rem; line-height: 1.45; margin: 0; }
.n { text-align: right; }
@media print { .wide { overflow: visible; } table { font-size: 0.7rem; } tr, figure { break-inside: avoid; } }
"""
