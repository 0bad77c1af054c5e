"""What every page has: its head, its way back, its style and its few lines of script."""

from dataclasses import dataclass

from orchestrator.ui.elements import Markup, el, joined

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --soft: #b9c0c7; --mark: #06c;
  --faint: #f2f4f6; --good: #17803d; --bad: #c02020; --busy: #1d5fbf; --wait: #8a6100; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181b; --soft: #555d66; --mark: #6af; --faint: #22262b;
    --good: #4ec27a; --bad: #ff7b72; --busy: #79b0ff; --wait: #e0b050; }
}
* { box-sizing: border-box; }
body { color: var(--ink); background: var(--paper); font: 1rem/1.5 system-ui, sans-serif;
  max-width: 80rem; margin: 0 auto; padding: .75rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; } h3 { font-size: 1rem; }
a { color: var(--mark); } a:focus-visible, .scroll:focus-visible, button:focus-visible {
  outline: 3px solid var(--mark); outline-offset: 2px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; min-width: 100%; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; overflow-wrap: normal;
  border-bottom: 1px solid var(--soft); font-variant-numeric: tabular-nums; }
thead th { font-weight: 500; } tbody th { font-weight: 500; }
tbody th, .short { white-space: nowrap; } .long { min-width: 16rem; overflow-wrap: anywhere; }
.scroll { margin-top: 1rem; }
.state { font-weight: 600; white-space: nowrap; }
.SUCCEEDED { color: var(--good); } .FAILED { color: var(--bad); }
.RUNNING, .STARTING { color: var(--busy); } .QUEUED, .STOPPING { color: var(--wait); }
progress { width: 100%; max-width: 24rem; accent-color: var(--mark); }
.warn { border-left: .3rem solid var(--bad); padding-left: .7rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0; }
dd { margin: 0; }
.plots { display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); }
.pictures { display: flex; flex-wrap: wrap; gap: .75rem; }
figure { margin: 0; } figcaption { font-size: .85rem; }
figure svg { width: 100%; max-width: 42rem; height: auto; }
img { image-rendering: pixelated; max-width: 100%; background: var(--faint); }
.tile img { width: 64px; height: auto; display: block; }
pre { overflow-x: auto; background: var(--faint); padding: .6rem; font-size: .85rem; }
form { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: .5rem 0; }
input, select, button { font: inherit; padding: .35rem .6rem; }
nav a { margin-right: 1rem; } #note { color: var(--bad); margin: 0; }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; } dt { font-weight: 600; }
  table, caption, tbody, tr, th, td { display: block; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tr { border-bottom: 1px solid var(--soft); padding: .3rem 0; }
  th, td { border: 0; padding: .1rem 0; white-space: normal; }
  td:empty { display: none; } [data-head]::before { content: attr(data-head) ": "; opacity: .75; }
}
"""

# Shows the live parts anew, keeps the focus and what is open as they were, and knows a few keys.
SCRIPT = """"use strict";
const note = text => { document.getElementById("note").textContent = text; };
const shown = new Map();
const state = () => (document.querySelector("#now .state") || {}).textContent;
async function refresh(live) {
  if (document.hidden) return;
  try {
    const address = new URL(location.href);
    address.searchParams.set("part", live.id);
    const answer = await fetch(address, {credentials: "same-origin"});
    if (!answer.ok) throw new Error(String(answer.status));
    const text = await answer.text();
    if (text !== shown.get(live.id)) show(live, text);
    shown.set(live.id, text);
    note("");
  } catch (error) { note("No answer; what is shown here may be old."); }
}
function show(live, text) {
  const body = new DOMParser().parseFromString(text, "text/html").body;
  const focus = document.activeElement && document.activeElement.id;
  const open = [...live.querySelectorAll("details[open]")].map(each => each.id);
  const before = state();
  live.replaceChildren(...body.childNodes);
  for (const id of open) {
    const again = id && document.getElementById(id);
    if (again) again.open = true;
  }
  if (focus && document.getElementById(focus))
    document.getElementById(focus).focus({preventScroll: true});
  if (state() !== before) parts.filter(each => each !== live).forEach(refresh);
}
const parts = [...document.querySelectorAll("[data-every]")];
parts.forEach(live => setInterval(refresh, 1000 * live.dataset.every, live));
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  const rows = [...document.querySelectorAll("a[data-row]")];
  const at = rows.indexOf(document.activeElement);
  const go = selector => { const link = document.querySelector(selector); if (link) link.click(); };
  if (event.key === "j" && rows.length) rows[Math.min(at + 1, rows.length - 1)].focus();
  else if (event.key === "k" && rows.length) rows[Math.max(at - 1, 0)].focus();
  else if (event.key === "h") go("a[data-home]");
  else if (event.key === "n") go("a[rel=next]");
  else if (event.key === "p") go("a[rel=prev]");
  else return;
  event.preventDefault();
});
"""


@dataclass(frozen=True)
class Part:
    """A part of a page that is shown anew again and again.

    Attributes:
        name: Its id, and what is asked for with `part=`.
        body: What it holds now.
        every_s: Seconds between two looks.
    """

    name: str
    body: Markup | None
    every_s: int


def page(title: str, *parts: Part | Markup | None) -> str:
    """Return a whole page.

    Args:
        title: Its heading.
        parts: What it holds, from top to bottom; what is no `Part` stays as it was when the page
            was loaded.
    """
    shown = [
        el("div", part.body, id=part.name, data_every=part.every_s)
        if isinstance(part, Part)
        else part
        for part in parts
    ]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("link", rel="icon", href="data:,"),
        el("title", f"{title} - ddpmctl"),
        el("link", rel="stylesheet", href="/ui.css"),
        el("script", src="/ui.js", defer=True),
    )
    keys = "Keys: j and k move, Enter opens, h goes to all jobs, n and p turn pages."
    body = el(
        "body",
        el("header", el("nav", el("a", "all jobs", href="/", data_home=True)), el("h1", title)),
        el("p", id="note", role="status"),
        el("main", *shown),
        el("footer", el("p", el("small", keys))),
    )
    return "<!doctype html>" + el("html", joined(head, body), lang="en")
