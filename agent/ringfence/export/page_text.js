// SPDX-License-Identifier: Apache-2.0
// Texts, elements, lists and times. What the agent says is only ever set as text: no markup is made of it.
"use strict";

const byId = (id) => document.getElementById(id);
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

// Control characters and direction overrides become escapes, as the agent escapes them.
function shown(value) {
  return String(value ?? "").replace(UNPRINTABLE, (found) => `\\u{${found.codePointAt(0).toString(16)}}`);
}

const linesOf = (text) => String(text ?? "").split("\n").map(shown).join("\n");

// Makes an element. Properties are attributes; `on` has event listeners, `data` what `dataset` takes.
function element(name, properties = {}, ...children) {
  const { on = {}, data = {}, ...attributes } = properties;
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  Object.assign(made.dataset, data);
  for (const [event, listener] of Object.entries(on)) made.addEventListener(event, listener);
  made.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== ""));
  return made;
}

// The text in pieces with places for a line break, so that no word is broken: after the punctuation of paths,
// options and code, but not in numbers (1.27), after an apostrophe (host's), after an opening quote, or in an escape.
const BREAK = /(?<=\S[^\p{L}\p{N}_\s\\])(?<!\p{N}[.,:])(?<!\p{L}['’])(?=[\p{L}\p{N}_])/u;
const breakable = (text) => text.split(BREAK).flatMap((piece, n) => (n ? [element("wbr"), piece] : [piece]));

// Observed text, isolated: a name in another direction does not reorder its neighbours.
const observed = (value, properties = {}) => element("bdi", properties, breakable(shown(value)));
// Names with slashes between them, each isolated.
const observedPath = (names) => names.flatMap((name, n) => (n ? ["/", element("wbr"), observed(name)] : [observed(name)]));
const tag = (text, colour) => element("span", { class: `tag ${colour}` }, shown(text));

// Makes the children of `parent` those of `items`: {key, signature, make, update}. A child whose signature
// did not change is not touched and not moved, so a selection, the focus and the scroll position survive.
function sync(parent, items) {
  const wanted = new Set(items.map((item) => item.key));
  const old = new Map();
  for (const child of [...parent.children]) {
    if (wanted.has(child.syncKey) && !old.has(child.syncKey)) old.set(child.syncKey, child);
    else child.remove();
  }
  let next = parent.firstElementChild;
  for (const item of items) {
    const found = old.get(item.key);
    let child = found;
    if (!found || found.syncSignature !== item.signature) {
      child = Object.assign(item.make(), { syncKey: item.key, syncSignature: item.signature });
      if (found) replaceChild(found, child);
      if (found && found === next) next = child;
    }
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
    item.update?.(child);
  }
}

// Replaces an element; the focus stays on its part of the same name (data-focus).
function replaceChild(found, child) {
  const active = found.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  found.replaceWith(child);
  if (active === undefined) return;
  const heir = [child, ...child.querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === active);
  heir?.focus({ preventScroll: true });
}

// One child that is remade when its signature changes.
const put = (parent, signature, make) => sync(parent, [{ key: "only", signature, make }]);

// Sets observed text, in place of what is there.
const setObserved = (target, text) => put(target, text, () => observed(text));

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// -- times: in the browser's zone or in UTC, the zone always shown ----------------------------

const LOCAL = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
const clocks = { zone: LOCAL, skew: 0 };
const formats = new Map();
const now = () => Date.now() + clocks.skew;

// Returns 2026-12-02 03:12:40 in the chosen zone, or the text itself if it is not a time.
function moment(at) {
  if (!Number.isFinite(at)) return "unknown time";
  if (!formats.has(clocks.zone)) {
    const options = { dateStyle: "short", timeStyle: "medium", timeZone: clocks.zone };
    formats.set(clocks.zone, new Intl.DateTimeFormat("sv-SE", options));
  }
  return formats.get(clocks.zone).format(at);
}

// Returns the time of day, with the date if it is not today.
function clock(at) {
  const whole = moment(at);
  return whole.slice(0, 10) === moment(now()).slice(0, 10) ? whole.slice(11) : whole;
}

function zoneName() {
  if (clocks.zone === "UTC") return "UTC";
  const parts = new Intl.DateTimeFormat("en", { timeZone: clocks.zone, timeZoneName: "longOffset" }).formatToParts(now());
  const offset = parts.find((part) => part.type === "timeZoneName")?.value || "";
  return `${clocks.zone} (${offset.replace("GMT", "UTC")})`;
}

function age(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [length, unit] = parts.find(([least]) => seconds >= least) || [1, "s"];
  return `${Math.floor(seconds / length)} ${unit}`;
}

// -- words ---------------------------------------------------------------------------------------

const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
const total = (counts) => Object.values(counts || {}).reduce((sum, count) => sum + count, 0);
const listed = (counts) => Object.entries(counts || {}).filter(([, n]) => n).map(([k, n]) => `${k} ${n}`).join(", ");

// An ID of a runtime is shown by its first twelve digits, as runtimes do; another name is shown whole.
const shortId = (id) => (/^[0-9a-f]{64}$/.test(id) ? id.slice(0, 12) : String(id ?? ""));

// A word of a shell. Names come from containers, so whatever is not plainly harmless is quoted.
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${shown(word).replaceAll("'", `'"'"'`)}'`;
}

function say(text) {
  byId("said").textContent = text;
}

// Copies text. Where the clipboard is not available (plain HTTP), the text is selected instead.
async function copy(text, source) {
  try {
    await navigator.clipboard.writeText(text);
    say("copied");
    return true;
  } catch {
    if (source) getSelection().selectAllChildren(source);
    const done = Boolean(source) && document.execCommand("copy");
    say(done ? "copied" : "selected: press Ctrl+C");
    return done;
  }
}

// A box with text to copy, and its button.
function copied(text, what) {
  const box = element("pre", { class: "box", tabindex: "0", role: "group", "aria-label": what }, element("bdi", {}, breakable(text)));
  const button = element("button", { type: "button", class: "quiet", "aria-label": `Copy ${what}`, data: { focus: `copy ${what}` } }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text, box)) ? "Copied" : "Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return element("div", { class: "copied" }, box, button);
}
