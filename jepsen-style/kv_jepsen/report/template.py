"""The frame of every page: its head and its style. No script, nothing from elsewhere.

Pure. Colours are variables with a light and a dark set; those of outcomes differ in lightness too, for eyes that do
not tell red from green.
"""

from __future__ import annotations

from typing import Final

from kv_jepsen.report.markup import Markup, tag

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --page: #ffffff; --box: #f5f7f9;
  --ok: #2f7fc1; --failed: #9273b0; --unknown: #e08a00; --bad: #c62f3b; --good: #1e7d43; --fault0: #d9534f;
  --fault1: #7a5cc8; --fault2: #b07c10; --fault3: #2b8a8a; --l0: #2f7fc1; --l1: #e08a00; --l2: #c62f3b; --l3: #59636e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4af; --line: #3a424c; --page: #14181d;
  --box: #1e242b; --ok: #66aee8; --failed: #8f7aa3; --unknown: #f0a63c; --bad: #ff6b74; --good: #4cc27c; --l0: #66aee8;
  --l1: #f0a63c; --l2: #ff6b74; --l3: #9aa4af; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p, li { overflow-wrap: anywhere; }
.soft { color: var(--soft); } .small { font-size: .875rem; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; } th, td { text-align: left; padding: .3rem .75rem .3rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; } th { font-weight: 600; white-space: nowrap; }
td { min-width: 4rem; } .runs td:nth-child(2) { min-width: 9rem; } .runs td:nth-child(3) { white-space: nowrap; }
.runs td:last-child { min-width: 24rem; }
.badge { display: inline-block; padding: 0 .5rem; border-radius: .25rem; color: #fff; font-weight: 600; }
.good { background: #1e7d43; } .bad { background: #c62f3b; } .unsure { background: #8a6100; }
.plot { overflow-x: auto; background: var(--box); border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0; }
.plot svg { display: block; width: 100%; min-width: 44rem; height: auto; } .plot.long svg { width: auto; min-width: 0; }
/* What is wider than the screen opens at its end, where the contradiction is. */
.plot.end { direction: rtl; } .plot.end svg { direction: ltr; margin: 0 auto 0 0; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
svg .axis { stroke: var(--line); stroke-width: 1; } svg .dots { stroke-width: 3; stroke-linecap: round; fill: none;
  opacity: .75; }
svg .curve { fill: none; stroke-width: 1.75; } .s-ok { stroke: var(--ok); } .s-failed { stroke: var(--failed); }
.s-unknown { stroke: var(--unknown); } .f-ok { fill: var(--ok); } .f-failed { fill: var(--failed); }
.f-unknown { fill: var(--unknown); } .f-bad { fill: var(--bad); } .s-bad { stroke: var(--bad); }
.s-l0 { stroke: var(--l0); } .s-l1 { stroke: var(--l1); } .s-l2 { stroke: var(--l2); } .s-l3 { stroke: var(--l3); } .f-l0 { fill: var(--l0); }
.f-l1 { fill: var(--l1); } .f-l2 { fill: var(--l2); } .f-l3 { fill: var(--l3); }
.fault { opacity: .16; } .fault0 { fill: var(--fault0); } .fault1 { fill: var(--fault1); }
.fault2 { fill: var(--fault2); } .fault3 { fill: var(--fault3); }
svg .in { fill: #fff; font-size: 11px; } svg .call { fill-opacity: .85; } svg .open { stroke-dasharray: 4 3; fill-opacity: .45; }
svg .context { opacity: .4; } svg .blocked { stroke: var(--bad); stroke-width: 2.5; } svg a:target rect, svg g:target rect { stroke: var(--ink);
  stroke-width: 2.5; } svg .path { fill: none; stroke: var(--ink); stroke-width: 1.75; } svg .point { fill: var(--ink); }
.legend span { margin-right: 1rem; white-space: nowrap; } .legend i, .swatch { display: inline-block; width: .8em; height: .8em;
  border-radius: .15em; margin-right: .35em; vertical-align: -.05em; }
details { margin: .5rem 0; } summary { cursor: pointer; } pre { overflow-x: auto; background: var(--box);
  padding: .75rem; border-radius: .4rem; font-size: .85rem; } a { color: var(--ok); }
.pair { display: flex; flex-wrap: wrap; gap: 0 1.5rem; align-items: center; } .pair > ol { flex: 1 1 20rem; }
.pair > svg { flex: none; }
.kind { display: inline-block; min-width: 5rem; font-weight: 600; }
ol.chain { padding-left: 1.5rem; } code { overflow-wrap: anywhere; }
"""


def page(title: str, *content: object) -> str:
    """A whole document of one file."""
    head = tag(
        "head",
        None,
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", None, title),
        tag("style", None, Markup(STYLE)),
    )
    body = tag("body", None, tag("main", None, *content))
    return "<!DOCTYPE html>\n" + tag("html", {"lang": "en"}, head, body) + "\n"
