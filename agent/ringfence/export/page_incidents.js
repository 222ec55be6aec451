// SPDX-License-Identifier: Apache-2.0
// Alerts, grouped by incident (a workload, ten minutes), and the detail of one alert.

const SEVERITIES = ["critical", "high", "medium", "low", "info"];
const INCIDENT = 10 * 60 * 1000;
const HOUR = 60 * 60 * 1000;
// How alerts ended: worst first. `name` is what a count is followed by.
const ENDINGS = [
  { id: "seen", name: "seen", title: "Seen, not stopped", colour: "bad" },
  { id: "audit", name: "only audited", title: "Audit mode: not stopped", colour: "warn" },
  { id: "finding", name: "found", title: "Findings of detectors", colour: "info" },
  { id: "stopped", name: "stopped", title: "Stopped", colour: "good" },
];
const COLOURS = { critical: "bad", warning: "warn", info: "info" };
const ATTACK = "https://attack.mitre.org/techniques/";

const part = (record, name) => (record && typeof record[name] === "object" && record[name]) || {};
const severityOf = (alert) => (SEVERITIES.includes(alert.severity) ? alert.severity : "high");
const severityColour = (word) => ({ critical: "bad", high: "bad", medium: "warn" })[word] || "info";
const timeOf = (alert) => Date.parse(alert.time);
const commandOf = (process) => (process.args || []).map(shown).join(" ") || shown(process.exe || process.comm);

function endingOf(alert) {
  if (part(alert, "rule").policy === "detectors") return ENDINGS[2];
  if (["denied", "killed"].includes(alert.outcome)) return ENDINGS[3];
  return ["would-deny", "would-kill"].includes(alert.outcome) ? ENDINGS[1] : ENDINGS[0];
}

const isStopped = (alert) => endingOf(alert) === ENDINGS[3];
const worst = (alerts) => ENDINGS.find((ending) => alerts.some((alert) => endingOf(alert) === ending));
const urgencyOf = (alerts) => Object.keys(COLOURS).find((word) => alerts.some((alert) => alert.urgency === word)) || "info";
const colourOf = (alerts) => (alerts.every(isStopped) ? "good" : COLOURS[urgencyOf(alerts)]);

// The workload: its owner (Deployment/web), else pod, container, id; without any, the node itself.
function workloadOf(alert) {
  const container = part(alert, "container");
  const name = container.owner || container.pod || container.name || shortId(container.id);
  if (!name) return { key: "node", names: [`${alert.node || "the node"}, outside of containers`] };
  const apart = container.pod || container.owner ? "" : container.id;
  return { key: JSON.stringify([container.namespace, name, apart]), names: [container.namespace, name].filter(Boolean) };
}

// Groups alerts (the newest first) by workload and ten minutes from the first; returns the newest group first.
function incidentsOf(alerts) {
  const current = new Map(), found = [];
  for (const alert of [...alerts].reverse()) {
    const workload = workloadOf(alert), at = timeOf(alert);
    let one = current.get(workload.key);
    if (!one || !(at - one.start < INCIDENT)) {
      one = { key: `${workload.key} ${alert.id}`, workload, start: at, end: at, alerts: [] };
      current.set(workload.key, one);
      found.push(one);
    }
    one.start = Math.min(one.start, at);
    one.end = Math.max(one.end, at);
    one.alerts.unshift(alert);
  }
  return found.sort((a, b) => b.start - a.start);
}

// The alerts of an incident by rule; what was not stopped comes first.
function rulesOf(incident) {
  const rules = new Map();
  for (const alert of incident.alerts) {
    const rule = part(alert, "rule"), key = `${rule.policy} ${rule.id}`;
    if (!rules.has(key)) rules.set(key, { key, alerts: [] });
    rules.get(key).alerts.push(alert);
  }
  const order = (one) => ENDINGS.indexOf(worst(one.alerts));
  return [...rules.values()].sort((a, b) => order(a) - order(b));
}

// "14 rules, 12 stopped, 2 seen, 1 finding", as pieces of text with colours.
function summary(rules) {
  const count = (ending) => rules.filter((rule) => worst(rule.alerts) === ending).length;
  const [seen, audit, finding, stopped] = ENDINGS.map(count);
  const pieces = [[seen + audit + stopped, "", plural(seen + audit + stopped, "rule")], [stopped, "good", `${stopped} stopped`],
    [seen, "bad", `${seen} seen`], [audit, "warn", `${audit} only audited`], [finding, "info", plural(finding, "finding")]];
  return pieces.filter(([number]) => number).map(([, colour, text]) => [colour, text]);
}

const span = (one) => (one.end - one.start < 1000 ? clock(one.start) : `${clock(one.start)} to ${clock(one.end)}`);

function showIncidents(incidents, page) {
  const items = incidents.map((incident) => ({
    key: incident.key, signature: "", make: () => element("article", { class: "incident" }, element("h3"), element("ul", { class: "rows" })),
    update: (made) => showIncident(made, incident, page),
  }));
  const none = { key: "none", signature: page.emptyText, make: () => element("p", { class: "empty" }, page.emptyText) };
  sync(byId("incidents"), items.length ? items : [none]);
}

function showIncident(made, incident, page) {
  const open = page.isOpen(incident), rules = rulesOf(incident), colour = colourOf(incident.alerts);
  made.className = `incident ${colour}`;
  const words = [open, colour, summary(rules), incident.alerts.length, span(incident), incident.workload.names];
  put(made.firstElementChild, JSON.stringify(words), () => incidentHead(incident, rules, open, page));
  const list = made.lastElementChild;
  list.hidden = !open;
  sync(list, open ? rules.map((rule) => ruleItem(incident, rule, page)) : []);
}

function incidentHead(incident, rules, open, page) {
  const severity = SEVERITIES.find((word) => incident.alerts.some((alert) => severityOf(alert) === word));
  return element("button", {
    type: "button", class: "head", "aria-expanded": String(open),
    data: { focus: "head", row: "head" }, on: { click: () => page.toggle(incident) },
  },
  element("span", { class: "arrow", "aria-hidden": "true" }),
  element("span", { class: "name" }, observedPath(incident.workload.names), " ", tag(severity, severityColour(severity))),
  element("span", { class: "sum" }, summary(rules).flatMap(([kind, text], n) => [n ? ", " : "", element("span", { class: kind }, text)])),
  element("span", { class: "when" }, span(incident)),
  element("span", { class: "alerts" }, plural(incident.alerts.length, "alert")));
}

function ruleItem(incident, rule, page) {
  const [alert] = rule.alerts;
  const chosen = rule.alerts.some((one) => one.id === page.chosen);
  const words = [alert.id, rule.alerts.length, chosen, clocks.zone, clock(timeOf(alert))];
  return { key: rule.key, signature: JSON.stringify(words), make: () => element("li", {}, ruleRow(alert, rule, chosen, page)) };
}

function ruleRow(alert, rule, chosen, page) {
  const ending = worst(rule.alerts), named = part(alert, "rule");
  const outcome = ending.id === "finding" ? "finding" : rule.alerts.find((one) => endingOf(one) === ending).outcome;
  return element("button", {
    type: "button", class: "row", "aria-current": chosen ? "true" : "false",
    data: { focus: rule.key, row: alert.id }, on: { click: () => page.choose(alert) },
  },
  tag(outcome || "seen", ending.colour),
  observed(named.title || named.id || `rule ${named.number}`, { class: "title" }),
  element("span", { class: "when" }, rule.alerts.length > 1 ? `${rule.alerts.length} ×, ` : "", clock(timeOf(alert))),
  element("bdi", { class: "command" }, commandOf(part(alert, "process"))));
}

// -- the detail of one alert ------------------------------------------------------------------

function pairs(rows) {
  const known = rows.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return element("dl", { class: "pairs" }, known.map(([name, value]) => [element("dt", {}, name),
    element("dd", {}, value instanceof Node ? value : observed(value))]));
}

function detail(alert, siblings, page) {
  const rule = part(alert, "rule"), ending = endingOf(alert), severity = severityOf(alert);
  return element("div", {},
    element("div", { class: "detail-head" },
      element("h2", { id: "detail-title", tabindex: "-1" }, observed(rule.title || rule.id || "an unknown rule")),
      element("button", { type: "button", class: "quiet", data: { focus: "close" }, on: { click: page.close } }, "Close")),
    element("div", { class: "tags" }, tag(severity, severityColour(severity)),
      tag(ending.id === "finding" ? "finding" : alert.outcome, ending.colour), tag(rule.id, "")),
    page.isRemembered(alert) ? "" : element("p", { class: "hint" }, "The agent remembers this alert no longer; its receivers and log have it."),
    ...meaning(alert), ...occurrences(alert, siblings, page), ...origin(alert), ...place(alert), ...advice(alert), ...evidence(alert));
}

function meaning(alert) {
  const suppressed = alert.suppressed ? ` ${plural(alert.suppressed, "alert")} of this rule before it were counted and not written.` : "";
  const tried = alert.tried || alert.event;
  return [
    tried === part(alert, "rule").title ? "" : element("p", { class: "lead" }, element("strong", {}, "Tried: "), observed(tried)),
    element("p", { class: "lead" }, element("strong", {}, "Ended: "), observed(alert.ended || alert.outcome), "."),
    element("p", { class: "lead" }, element("strong", {}, "Meaning: "), observed(alert.means || ""), suppressed),
    ...(alert.notes || []).map((note) => element("p", { class: "hint" }, "Note: ", observed(note))),
  ];
}

function occurrences(alert, siblings, page) {
  const at = element("p", { class: "lead" }, element("strong", {}, "Time: "), `${moment(timeOf(alert))} ${zoneName()}`);
  if (siblings.length < 2) return [at];
  const buttons = siblings.slice(0, 30).map((one) => element("button", {
    type: "button", class: "quiet", "aria-current": one.id === alert.id ? "true" : "false",
    data: { focus: one.id }, on: { click: () => page.choose(one) },
  }, clock(timeOf(one))));
  const more = siblings.length > 30 ? `, the last 30` : "";
  return [at, element("h3", {}, `${siblings.length} alerts of this rule in this incident${more}`), element("div", { class: "times" }, buttons)];
}

// The process below its ancestors, the oldest first.
function origin(alert) {
  const process = part(alert, "process");
  const line = (one, properties, below) => element("ul", { class: "tree" }, element("li", properties,
    observed(one.comm || "unknown"), one.pid ? ` [${one.pid}] ` : " ", observed(one.exe || "", { class: "exe" }), below));
  const tree = (process.ancestry || []).reduce((below, parent) => line(parent, {}, below), line(process, { class: "self" }));
  const argv = (process.args || []).map(quoted).join(" ");
  const ids = [["User", `${process.uid ?? "?"}, group ${process.gid ?? "?"}`], ["PID", process.vpid ? `${process.pid} on the node, ${process.vpid} in the container` : process.pid],
    ["Facts", (process.facts || []).join(", ")]];
  return [element("h3", {}, "Process tree"), tree, element("h3", {}, "Command"),
    argv ? copied(argv, "the command line") : element("p", { class: "hint" }, "The arguments are not known."), pairs(process.uid === undefined ? [] : ids)];
}

function place(alert) {
  const container = part(alert, "container"), posture = part(container, "posture");
  const score = posture.score === undefined ? "" : `${posture.score} of 100 (${(posture.reasons || []).join(", ") || "confined"})`;
  return [element("h3", {}, "Where"), pairs([
    ["Cluster", part(alert, "labels").cluster], ["Node", alert.node], ["Namespace", container.namespace],
    ["Workload", container.owner], ["Pod", container.pod], ["Container", container.name],
    ["Image", container.image], ["Digest", container.image_digest], ["ID", container.id],
    ["Privileged", container.privileged ? "yes" : ""], ["Exposure", score],
  ])];
}

// Commands that only look. A name that begins with a dash would be an option, so it is not offered.
function commandsOf(alert) {
  const { namespace, pod, name, id } = part(alert, "container");
  const plain = (word) => word && !String(word).startsWith("-");
  const commands = [...(alert.next || [])];
  if (plain(namespace) && plain(pod)) {
    const chosen = plain(name) ? ` -c ${quoted(name)}` : "";
    commands.push(`kubectl -n ${quoted(namespace)} logs ${quoted(pod)}${chosen} --since=30m`);
  }
  if (plain(id)) {
    const short = quoted(shortId(id));
    commands.push(`ringfence events --since 1h -c ${short}`, `ringfence tree ${short}`);
  }
  return [...new Set(commands.map(shown))];
}

function advice(alert) {
  const commands = commandsOf(alert).map((command, n) => copied(command, `command ${n + 1}`));
  const address = String(alert.runbook_url || "");
  const name = shown(alert.runbook || address);
  const link = /^https:\/\//.test(address) ? element("a", { href: address, rel: "noreferrer noopener", target: "_blank" }, name) : observed(name);
  return [
    element("h3", {}, "What to do"), element("p", { class: "hint" }, "These commands only look. The ones of ringfence run on the node."),
    ...commands, element("p", {}, "Runbook: ", link),
    ...(alert.allow ? [element("h3", {}, "What would allow it"), element("p", { class: "hint" }, "Only if this is legitimate: the narrowest exception."),
      copied(linesOf(alert.allow), "the exception")] : []),
  ];
}

function techniques(rule) {
  const links = (rule.attack || []).filter((one) => /^T\d{4}(\.\d{3})?$/.test(one)).map((one) => element("a",
    { href: ATTACK + one.replace(".", "/"), rel: "noreferrer noopener", target: "_blank" }, one));
  return links.length ? element("span", {}, ...links.flatMap((link, n) => (n ? [", ", link] : [link]))) : "";
}

function plainOf(value) {
  if (Array.isArray(value) && value.every((one) => typeof one !== "object")) return value.join(", ");
  return value !== null && typeof value === "object" ? JSON.stringify(value) : value;
}

function evidence(alert) {
  const rule = part(alert, "rule");
  const details = Object.entries(part(alert, "details")).map(([key, value]) => [shown(key), plainOf(value)]);
  return [element("h3", {}, "Evidence"), pairs([
    ["Event", alert.event], ...details, ["Rule", rule.id], ["Policy", [rule.policy, rule.mode].filter(Boolean).join(", mode ")],
    ["File", rule.file ? `${rule.file}:${rule.line}` : ""], ["ATT&CK", techniques(rule)], ["Decided by", alert.mechanism],
    ["Latency", alert.latency_us ? `${alert.latency_us} µs` : ""], ["Policy digest", alert.policy_digest], ["Alert", alert.id],
  ]), element("details", {}, element("summary", { data: { focus: "raw" } }, "The whole record"),
    copied(linesOf(JSON.stringify(alert, null, 1)), "the record"))];
}

// -- the last hour, by minute -------------------------------------------------------------------

function showTimeline(alerts) {
  const end = Math.ceil(now() / 60000) * 60000, minutes = Array.from({ length: 60 }, () => ({ bad: 0, warn: 0, info: 0, good: 0 }));
  const counted = alerts.filter((alert) => end - timeOf(alert) >= 0 && end - timeOf(alert) < HOUR);
  for (const alert of counted) minutes[59 - Math.floor((end - timeOf(alert)) / 60000)][endingOf(alert).colour] += 1;
  const most = Math.max(1, ...minutes.map(total));
  put(byId("timeline"), JSON.stringify([end, minutes]), () => bars(minutes, most));
  const marks = [60, 45, 30, 15, 0].map((minutes) => moment(end - minutes * 60000).slice(11, 16));
  sync(byId("axis"), marks.map((mark, n) => ({ key: n, signature: mark, make: () => element("span", {}, mark) })));
  const counts = ENDINGS.map((ending) => [counted.filter((alert) => endingOf(alert) === ending).length, ending]).filter(([count]) => count);
  const words = counts.map(([count, ending]) => `${count} ${ending.name}`).join(", ");
  setText(byId("timeline-text"), counted.length ? `Alerts by minute, last hour: ${words}. Most in a minute: ${most}.` : "No alert in the last hour.");
}

function bars(minutes, most) {
  const space = "http://www.w3.org/2000/svg", group = document.createElementNS(space, "g");
  minutes.forEach((counts, n) => {
    let top = 44;
    for (const [colour, count] of Object.entries(counts).filter(([, many]) => many)) {
      const height = Math.max(2, (count / most) * 42), bar = document.createElementNS(space, "rect");
      top -= height;
      for (const [key, value] of Object.entries({ x: n * 10 + 1, y: top, width: 8, height, class: colour })) bar.setAttribute(key, value);
      group.append(bar);
    }
  });
  return group;
}
