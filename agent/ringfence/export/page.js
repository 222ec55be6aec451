// SPDX-License-Identifier: Apache-2.0
// The page: its state (also in the address), the views of containers, rules and node, and the requests.

const VIEWS = { incidents: "Incidents", containers: "Containers", rules: "Rules", node: "Node" };
const EMPTY = { view: "incidents", q: "", namespace: "", severity: "", ending: "", alert: "", tz: "" };
const EVERY = 2000, EVERY_HIDDEN = 10000;
const SKEW = 30000; // a difference between the clocks of browser and node that is shown

const data = { status: null, alerts: [], containers: { containers: [], more: 0 }, policies: [] };
const state = { ...EMPTY, open: new Set(), closed: new Set(), kept: null, failedSince: 0, updated: 0, returnTo: "" };

// -- the address has what is shown, so that a view can be shared -------------------------------

function readAddress() {
  const words = new URLSearchParams(location.search);
  for (const key of Object.keys(EMPTY)) state[key] = words.get(key) ?? EMPTY[key];
  const known = { view: Object.keys(VIEWS), severity: SEVERITIES, ending: ENDINGS.map((one) => one.id) };
  for (const [key, words] of Object.entries(known)) if (!words.includes(state[key])) state[key] = EMPTY[key];
  clocks.zone = state.tz.toLowerCase() === "utc" ? "UTC" : LOCAL;
}

function addressOf(changes = {}) {
  const words = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...state, ...changes })) {
    if (key in EMPTY && value !== EMPTY[key]) words.set(key, value);
  }
  return `?${words}`;
}

function change(changes, { step = false } = {}) {
  Object.assign(state, changes);
  history[step ? "pushState" : "replaceState"](null, "", addressOf());
  render();
}

// -- filters -----------------------------------------------------------------------------------------

const texts = new WeakMap();

function textOf(thing) {
  if (!texts.has(thing)) texts.set(thing, JSON.stringify(thing).toLowerCase());
  return texts.get(thing);
}

const alertText = (alert) => {
  if (!texts.has(alert)) {
    const { allow, next, ...rest } = alert;
    const container = part(alert, "container");
    texts.set(alert, `${JSON.stringify(rest)} ${container.namespace}/${container.pod}/${container.name} ${commandOf(part(alert, "process"))}`.toLowerCase());
  }
  return texts.get(alert);
};
const matches = (text) => state.q.toLowerCase().split(/\s+/).every((word) => text.includes(word));
const severeEnough = (severity) => !state.severity || SEVERITIES.indexOf(severity) <= SEVERITIES.indexOf(state.severity);
const inNamespace = (container) => !state.namespace || container.namespace === state.namespace;

const narrowed = () => data.alerts.filter((alert) => matches(alertText(alert)) && severeEnough(severityOf(alert)) && inNamespace(part(alert, "container")));

function options(id, choices) {
  const target = byId(id);
  sync(target, choices.map(([value, text]) => ({ key: value, signature: text, make: () => element("option", { value }, shown(text)) })));
  if (target.value !== state[id]) target.value = state[id];
}

function showFilters() {
  const names = new Set([...data.alerts.map((alert) => part(alert, "container").namespace), ...data.containers.containers.map((one) => one.namespace), state.namespace]);
  options("namespace", [["", "all"], ...[...names].filter(Boolean).sort().map((name) => [name, name])]);
  options("severity", [["", "all"], ...SEVERITIES.slice(0, 4).map((word, n) => [word, n ? `${word} and above` : word])]);
  if (byId("q").value !== state.q && document.activeElement !== byId("q")) byId("q").value = state.q;
  for (const field of document.querySelectorAll("[data-for]")) field.hidden = !field.dataset.for.split(" ").includes(state.view);
  byId("filters").hidden = state.view === "node";
  byId("clear").hidden = !["q", "namespace", "severity", "ending"].some((key) => state[key]);
}

function showTiles(alerts) {
  sync(byId("tiles"), ENDINGS.map(({ id, title, colour }) => {
    const count = alerts.filter((alert) => endingOf(alert).id === id).length, pressed = state.ending === id;
    const make = () => element("button", {
      type: "button", class: `tile ${colour}${count ? " some" : ""}`, "aria-pressed": String(pressed), data: { focus: id },
      on: { click: () => change({ ending: state.ending === id ? "" : id }) },
    }, element("b", {}, String(count)), element("span", {}, title));
    return { key: id, signature: `${count} ${pressed}`, make };
  }));
}

// -- incidents -----------------------------------------------------------------------------------------

const page = {
  get chosen() { return state.alert; },
  get emptyText() {
    if (!data.status) return "Asking the agent.";
    return data.alerts.length ? "No alert matches the filters." : "No alerts. Nothing that a rule forbids has happened since the agent started.";
  },
  isOpen: (incident) => incident.alerts.some((alert) => state.open.has(alert.id)),
  isRemembered: (alert) => data.alerts.some((one) => one.id === alert.id),
  toggle(incident) {
    if (page.isOpen(incident)) incident.alerts.forEach((alert) => state.open.delete(alert.id));
    else state.open.add(incident.alerts[0].id);
    render();
  },
  choose(alert) {
    state.open.add(alert.id);
    state.kept = alert;
    change({ alert: alert.id }, { step: !state.alert });
    byId("detail-title")?.focus({ preventScroll: innerWidth >= 1100 });
    if (innerWidth < 1100) byId("detail").scrollIntoView();
  },
  close() {
    const row = state.alert;
    change({ alert: "" });
    state.kept = null;
    [...document.querySelectorAll("[data-row]")].find((one) => one.dataset.row === row)?.focus();
  },
};

let opened = false;

// The newest incident is open at first, and that of the alert in the address.
function openFirst(incidents) {
  if (opened || !incidents.length) return;
  opened = true;
  const shared = data.alerts.find((alert) => alert.id === state.alert);
  state.open.add((shared || incidents[0].alerts[0]).id);
}

function showAlerts() {
  const found = narrowed(), alerts = state.ending ? found.filter((alert) => endingOf(alert).id === state.ending) : found;
  const incidents = incidentsOf(alerts);
  openFirst(incidents);
  showTiles(found);
  showTimeline(alerts);
  const of = alerts.length === data.alerts.length ? "" : ` of ${data.alerts.length}`;
  setText(byId("count"), data.alerts.length ? `${plural(incidents.length, "incident")}, ${of ? `${alerts.length}${of} alerts` : plural(alerts.length, "alert")}.` : "");
  showIncidents(incidents, page);
  showDetail(incidents);
}

function showDetail(incidents) {
  const alert = data.alerts.find((one) => one.id === state.alert) || (state.kept?.id === state.alert ? state.kept : null);
  byId("detail").hidden = !alert;
  byId("detail").parentElement.classList.toggle("open", Boolean(alert));
  if (!alert) {
    byId("detail").replaceChildren();
    return;
  }
  state.kept = alert;
  const { policy, id } = part(alert, "rule");
  const incident = incidents.find((one) => one.alerts.some((other) => other.id === alert.id));
  const siblings = (incident?.alerts || []).filter((one) => part(one, "rule").id === id && part(one, "rule").policy === policy);
  const words = [alert.id, clocks.zone, siblings.map((one) => one.id), page.isRemembered(alert)];
  put(byId("detail"), JSON.stringify(words), () => detail(alert, siblings, page));
}

// -- the other views ---------------------------------------------------------------------------------

function table(id, heads, rows, none) {
  const target = byId(id);
  if (!target.tHead) target.append(element("thead", {}, element("tr", {}, heads.map(([text, kind]) => element("th", { scope: "col", class: kind }, text)))), element("tbody"));
  const cells = (row) => row.cells.map((cell, n) => (n ? element("td", { class: cell === "" ? "none" : heads[n][1], "data-label": heads[n][0] }, element("div", {}, cell instanceof Node ? cell : observed(cell)))
    : element("th", { scope: "row" }, cell)));
  const items = rows.map((row) => ({ key: row.key, signature: row.signature, make: () => element("tr", {}, cells(row)) }));
  const empty = { key: "none", signature: none, make: () => element("tr", {}, element("td", { colspan: heads.length }, none)) };
  sync(target.tBodies[0], items.length ? items : [empty]);
}

function showContainers() {
  const { containers, more } = data.containers;
  const found = containers.filter((one) => inNamespace(one) && matches(textOf(one)));
  const verdicts = (one) => ["alert", "deny", "kill"].reduce((sum, word) => sum + (part(one, "counts")[word] || 0), 0);
  found.sort((a, b) => verdicts(b) - verdicts(a));
  setText(byId("containers-text"), `${found.length} of ${plural(containers.length, "container")}${more ? `, and ${more} that are not listed` : ""}. Those with verdicts come first.`);
  table("containers", [["Container"], ["Image"], ["Runtime", "middle"], ["State", "middle"], ["Tasks", "narrow number"], ["Events", "narrow number"], ["Verdicts", "narrow number"]],
    found.map((one) => {
      const known = [one.namespace, one.pod, one.name].filter(Boolean), names = known.length ? known : [shortId(one.id)];
      const show = () => change({ view: "incidents", q: one.pod || one.name || one.id, namespace: one.namespace || "" }, { step: true });
      const count = verdicts(one);
      const link = count ? element("button", { type: "button", class: "link", data: { focus: "verdicts" }, "aria-label": `${count} verdicts: show the alerts of ${names.map(shown).join("/")}`, on: { click: show } }, String(count)) : "0";
      return { key: `${one.id} ${one.cgroup}`, signature: JSON.stringify(one), cells: [[observedPath(names), element("code", {}, observed(shortId(one.id)))], observed(one.image), one.runtime, one.state, String(one.tasks), String(total(one.counts)), link] };
    }), "No container.");
}

const EFFECTS = { deny: "good", kill: "warn", alert: "info", none: "bad" };
const isBlind = (rule) => rule.enforced === "none";

function effect(rule) {
  if (isBlind(rule)) return tag("blind", "bad");
  const words = rule.mechanism === "observe" || rule.mechanism === rule.enforced ? rule.enforced : `${rule.enforced} by ${rule.mechanism}`;
  return tag(words, EFFECTS[rule.enforced] || "");
}

const sourceOf = (rule) => [rule.policy, rule.file && `${String(rule.file).split("/").pop()}:${rule.line}`].filter(Boolean).join(", ");

function showRules() {
  const found = data.policies.filter((rule) => matches(textOf(rule)) && severeEnough(rule.severity));
  const order = (rule) => (isBlind(rule) ? 0 : 10) + SEVERITIES.indexOf(severityOf(rule));
  found.sort((a, b) => order(a) - order(b));
  const blind = new Set(data.policies.filter(isBlind).map((rule) => rule.rule)).size;
  const note = blind ? `${plural(blind, "rule")} cannot be enforced or reported on this node, in whole or in part ("blind"); they come first.` : "No rule is blind on this node.";
  setText(byId("rules-text"), `${found.length} of ${plural(data.policies.length, "row")}. ${note}`);
  table("rules", [["Rule"], ["Severity", "narrow"], ["Mode", "narrow"], ["Asks for", "narrow"], ["Effect here", "middle"], ["Events"], ["Why not more"]],
    found.map((rule, n) => ({
      key: JSON.stringify([rule.policy, rule.rule, rule.enforced, rule.mechanism, rule.why, n]), signature: JSON.stringify(rule),
      cells: [[observed(rule.title || rule.rule), element("code", {}, observed(rule.rule)), element("span", { class: "source" }, observed(sourceOf(rule)))], tag(rule.severity, severityColour(rule.severity)), rule.mode, rule.asked,
        effect(rule), element("span", {}, (rule.events || []).map((event) => [observed(event, { class: "whole" }), " "])), observed(rule.why || "")],
    })), "No rule.");
}

const plainList = (id, lines, none) => sync(byId(id), (lines.length ? lines : [none]).map((line, n) => ({ key: n, signature: line, make: () => element("li", {}, observed(line)) })));

function showNode(status) {
  const { node, policies, containers, process } = status;
  const facts = [
    ["Node", node.name], ["Cluster", node.cluster || "not named: alerts.labels has no `cluster`"], ["Kernel", `Linux ${node.kernel}, cgroup ${node.hierarchy}`],
    ["Agent", `${status.version}, up ${age(status.uptime_seconds)}`], ["Mode", status.mode],
    ["Policies", `${policies.policies} policies, ${plural(policies.rules, "rule")}, generation ${policies.generation}, digest ${policies.digest || "none"}`],
    ["Rules by effect", listed(policies.mechanisms) || "none"], ["Containers", `${containers.live} live, ${plural(containers.armed_tasks, "task")}`],
    ["Alerts", listed(status.alerts) || "none"], ["Lost", listed(status.lost) || "nothing"],
    ["Cost", `${(process.rss_bytes / 1048576).toFixed(0)} MiB, ${process.cpu_seconds.toFixed(1)} s of CPU time`],
  ];
  sync(byId("facts"), facts.flatMap(([name, value]) => [
    { key: name, signature: "", make: () => element("dt", {}, name) },
    { key: `${name} value`, signature: shown(value), make: () => element("dd", {}, observed(value)) }]));
  plainList("blind", node.blind || [], "Nothing: every rule has an effect here, and every program is attached.");
  plainList("refused", policies.problems || [], "None.");
}

// -- head: state, title, favicon ---------------------------------------------------------------------

const icon = element("link", { rel: "icon", type: "image/svg+xml" });
const ICONS = { good: "#2e9e4f", warn: "#c77700", bad: "#d32f2f" };

function favicon(colour) {
  const fill = ICONS[colour];
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><circle cx="32" cy="32" r="26" fill="none" stroke="${fill}" stroke-width="8" stroke-dasharray="13.2 3"/><rect x="20" y="20" width="24" height="24" rx="4" fill="${fill}"/></svg>`;
  const address = `data:image/svg+xml,${encodeURIComponent(svg)}`;
  if (icon.getAttribute("href") !== address) icon.setAttribute("href", address);
  if (!icon.isConnected) document.head.append(icon);
}

// Red: the agent does not answer or is not well, or something may have taken effect in the last hour.
function health() {
  const recent = data.alerts.filter((alert) => now() - timeOf(alert) < HOUR), problems = [];
  if (state.failedSince) problems.push(`The agent has not answered since ${clock(state.failedSince)}. What you see is older.`);
  problems.push(...(data.status?.problems || []));
  if (Math.abs(clocks.skew) > SKEW) problems.push(`The clocks of this browser and the node differ by ${age(Math.abs(clocks.skew) / 1000)}; times are the node's.`);
  const critical = recent.filter((alert) => alert.urgency === "critical").length;
  const colour = critical || problems.length ? "bad" : recent.some((alert) => alert.urgency === "warning") ? "warn" : "good";
  return { critical, problems, colour };
}

function badgeText(status, problems) {
  if (state.failedSince) return "no answer";
  if (!status) return "asking the agent";
  return problems.length ? "not well" : "ready";
}

function showHead() {
  const { status } = data, { critical, problems, colour } = health();
  const node = shown(status?.node?.name || "Ringfence"), cluster = shown(status?.node?.cluster || "");
  const name = cluster ? `${node} (${cluster})` : node;
  const first = state.failedSince ? "No answer: " : critical ? `${critical} not stopped: ` : problems.length ? "Not well: " : "";
  document.title = `${first}${name}${status ? " · Ringfence" : ""}`;
  favicon(colour);
  setObserved(byId("node"), node);
  setObserved(byId("place"), status ? `${cluster ? `cluster ${cluster} · ` : ""}Linux ${shown(status.node.kernel)}` : "status page of a node");
  setText(byId("state"), badgeText(status, problems));
  byId("state").className = `badge ${problems.length ? "bad" : status ? "good" : ""}`;
  byId("mode").hidden = !status;
  if (status) {
    setText(byId("mode"), `mode ${shown(status.mode)}`);
    byId("mode").className = `badge ${status.mode === "audit" ? "warn" : ""}`;
  }
  document.querySelector(".bar").className = `bar ${colour}`;
  byId("problems").hidden = !problems.length;
  sync(byId("problem-list"), problems.map((line, n) => ({ key: n, signature: line, make: () => element("li", {}, observed(line)) })));
  setText(byId("zone"), zoneName());
  setText(byId("updated"), state.updated ? `updated ${clock(state.updated)}` : "");
}

function showTabs() {
  const blind = data.policies.filter(isBlind).length;
  const counts = { incidents: incidentsOf(narrowed()).length, containers: data.containers.containers.length + data.containers.more, rules: blind ? `${blind} blind` : "", node: "" };
  sync(byId("tabs"), Object.entries(VIEWS).map(([view, text]) => {
    const number = data.status ? String(counts[view]) : "", current = state.view === view;
    const go = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      change({ view, alert: "" }, { step: true });
    };
    const make = () => element("li", {}, element("a", { href: addressOf({ view, alert: "" }), "aria-current": current ? "page" : undefined, data: { focus: view }, on: { click: go } },
      text, number ? element("span", { class: "number" }, ` ${number}`) : ""));
    return { key: view, signature: `${number} ${current} ${addressOf({ view, alert: "" })}`, make };
  }));
}

function render() {
  for (const view of Object.keys(VIEWS)) byId(`view-${view}`).hidden = view !== state.view;
  showHead();
  showTabs();
  showFilters();
  if (state.view === "incidents") showAlerts();
  if (state.view === "containers") showContainers();
  if (state.view === "rules") showRules();
  if (state.view === "node" && data.status) showNode(data.status);
}

// -- events of the person ------------------------------------------------------------------------------

function move(event) {
  const rows = [...byId("incidents").querySelectorAll("[data-row]")], at = rows.indexOf(document.activeElement);
  if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
  const last = rows.length - 1;
  const to = { ArrowDown: Math.min(at + 1, last), ArrowUp: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
  const expanded = rows[at].getAttribute("aria-expanded");
  if (to !== undefined) rows[to].focus();
  else if (event.key === "ArrowRight" && expanded === "false" || event.key === "ArrowLeft" && expanded === "true") rows[at].click();
  else return;
  event.preventDefault();
}

function listen() {
  byId("q").addEventListener("input", () => change({ q: byId("q").value }));
  for (const id of ["namespace", "severity"]) byId(id).addEventListener("change", () => change({ [id]: byId(id).value }));
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => {
    byId("q").value = "";
    change({ q: "", namespace: "", severity: "", ending: "" });
    byId("q").focus();
  });
  byId("link").addEventListener("click", async () => {
    byId("link").textContent = (await copy(location.href)) ? "Link copied" : "Copy the address above";
    setTimeout(() => { byId("link").textContent = "Copy link"; }, 1500);
  });
  byId("zone").addEventListener("click", () => {
    clocks.zone = clocks.zone === "UTC" ? LOCAL : "UTC";
    change({ tz: clocks.zone === "UTC" ? "utc" : "" });
  });
  byId("incidents").addEventListener("keydown", move);
  addEventListener("keydown", (event) => { if (event.key === "Escape" && state.alert) page.close(); });
  addEventListener("popstate", () => { readAddress(); byId("q").value = state.q; render(); });
}

// -- requests --------------------------------------------------------------------------------------------

const last = new Map();

async function ask(name) {
  const answer = await fetch(`api/${name}`, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  const text = await answer.text();
  if (last.get(name) === text) return;
  data[name] = JSON.parse(text);
  last.set(name, text);
}

async function poll() {
  try {
    await Promise.all(["status", "alerts", "containers", "policies"].map(ask));
    Object.assign(state, { failedSince: 0, updated: now() });
    if (data.status.time) clocks.skew = data.status.time * 1000 - Date.now();
    document.documentElement.dataset.polls = String(Number(document.documentElement.dataset.polls || 0) + 1);
  } catch {
    state.failedSince ||= state.updated || now();
  }
  try {
    render();
  } finally {
    setTimeout(poll, document.hidden ? EVERY_HIDDEN : EVERY);
  }
}

readAddress();
listen();
render();
poll();
