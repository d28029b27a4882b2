/** The operator's dashboard: one account of everything every two seconds, and what can be done about it. */

import { Chart } from "./charts.js";
import { Live } from "./live.js";
import { ask, duration, roughly, STATUS } from "./words.js";

const ACCOUNT = "/api/dashboard";
/** The operator's cookie decides these calls, and not the home page's. */
const OPERATOR = { "x-ide-gateway-operator": "1" };
const STATES = { launching: "Launching", ready: "Ready", draining: "Draining", stopped: "Stopped", lost: "Lost" };

const part = (id) => document.getElementById(id);
const charts = [
  new Chart("Live sessions", (sample) => sample.sessions),
  new Chart("Running workspaces, of slots", (sample) => sample.running, (sample) => sample.slots),
  new Chart("Waiting in the queue", (sample) => sample.queued),
  new Chart("Ready machines", (sample) => sample.machines),
];
part("charts").append(...charts.map((chart) => chart.element));

const live = new Live({
  stream: ACCOUNT,
  onNews: (text) => draw(JSON.parse(text)),
  poll: refresh,
  onTrouble: (text) => problem(text, "live"),
});

async function refresh() {
  draw(await ask(ACCOUNT));
}

function draw(account) {
  const { at, sessions, workspaces, machines, queue, scaler, cost, events, series } = account;
  write(part("sessions"), sessions.total);
  write(part("running"), workspaces.running);
  write(part("queued"), workspaces.queued);
  write(part("machines-count"), machines.filter((machine) => machine.status === "ready").length);
  write(part("cost-hour"), cost ? money(cost.perHour, cost.currency) : "no prices");
  write(part("cost-month"), cost ? money(cost.monthToDate, cost.currency) : "no prices");
  write(part("statuses"), Object.entries(workspaces)
    .filter(([, count]) => count).map(([status, count]) => `${count} ${(STATUS[status] ?? status).toLowerCase()}`)
    .join(", "));
  for (const chart of charts) chart.draw(series);
  fill("machines", machines, (machine) => machine.instanceId, machineRow, "No machines.");
  const hidden = account.machinesTotal - machines.length;
  write(part("machines-more"), hidden > 0 ? `and ${hidden} more` : "");
  const seats = machines.flatMap((machine) => machine.seats.map((seat) => ({ ...seat, machine: machine.instanceId })));
  fill("workspaces", seats, (seat) => seat.workspaceId, (seat) => workspaceRow(seat, at), "Nobody is on a machine.");
  fill("queue", queue, (waiting) => waiting.workspaceId, queueRow, "Nobody waits.");
  fill("gateways", sessions.gateways, (row) => row.gateway, (row) => [
    head(row.gateway), cell("Sessions", row.sessions), cell("Last seen", `${duration(at - row.lastSeenAt)} ago`),
  ], "No gateway.");
  fill("events", events, (event) => event.id, eventRow, "Nothing has happened yet.");
  drawScaler(scaler);
  write(part("news"), "");
  part("heading").dataset.live = "yes";
}

function machineRow(machine) {
  const { instanceId, status, machineClass, slots, seats, cpuPercent, memoryBytes, memoryTotalBytes } = machine;
  const list = element("ul", { className: "seats" });
  for (const seat of seats) list.append(element("li", { className: "seat", textContent: seat.name || seat.workspaceId }));
  for (let free = slots - seats.length; free > 0; free -= 1) {
    list.append(element("li", { className: "seat free", textContent: "free" }));
  }
  const memory = memoryTotalBytes ? `, memory ${Math.round((100 * memoryBytes) / memoryTotalBytes)} %` : "";
  const state = cell("State", STATES[status] ?? status, machine.held ? "held by an operator" : machine.reason ?? "");
  state.firstElementChild.className = "word";
  const actions = cell("Actions");
  if (status === "ready") actions.append(action("Drain", instanceId, () => drain(latest.get(instanceId) ?? machine)));
  if (status === "draining") actions.append(action("Undrain", instanceId, () => act(`/api/machines/${enc(instanceId)}/undrain`)));
  const taken = cell("Slots");
  taken.append(list);
  return [head(instanceId, machineClass), state, taken, cell("Load", `CPU ${Math.round(cpuPercent)} %${memory}`), actions];
}

function workspaceRow(seat, at) {
  const { workspaceId, name, userId, status, runningSince, pinned, machine } = seat;
  const since = runningSince ? `for ${roughly(at - runningSince)}` : "";
  const state = cell("State", STATUS[status] ?? status, [since, pinned ? "pinned" : ""].filter(Boolean).join(", "));
  state.firstElementChild.className = "word";
  const path = `/api/workspaces/${enc(workspaceId)}`;
  const actions = cell("Actions");
  actions.append(action("Why", workspaceId, () => why(seat)));
  if (status === "running" || status === "starting") {
    actions.append(
      action("Extend", workspaceId, () => act(`${path}/extend`)),
      action(pinned ? "Unpin" : "Pin", workspaceId, () => act(`${path}/${pinned ? "unpin" : "pin"}`)),
      action("Stop", workspaceId, () => stop(seat)),
    );
  }
  return [head(name || workspaceId, name ? workspaceId : ""), cell("User", userId), state, cell("Machine", machine), actions];
}

function queueRow(waiting) {
  return [cell("Place", waiting.position), head(waiting.name || waiting.workspaceId, waiting.name ? waiting.workspaceId : ""),
    cell("User", waiting.userId), cell("Priority", waiting.priority), cell("Starts in about", duration(waiting.etaSeconds * 1000))];
}

function eventRow(event) {
  const time = element("time", { dateTime: new Date(event.at).toISOString(), textContent: new Date(event.at).toLocaleTimeString() });
  const when = cell("Time");
  when.append(time);
  const of = [event.workspaceId, event.instanceId, event.userId, event.gateway].filter(Boolean).join(" · ");
  return [when, head(event.type), cell("Of", of), cell("Why", event.reason ?? "")];
}

/** "Held for exam (Dec 1, 09:00): 1250 slots", of all peaks in one line. */
function heldFor(peaks) {
  const each = peaks.filter(({ slots }) => slots > 0).map(({ peak, slots }) => {
    const time = new Date(peak.at).toLocaleString([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
    return `${peak.name} (${time}): ${slots} slots`;
  });
  return each.length ? `Held for ${each.join("; ")}` : "";
}

const isRecord = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const worded = (name) => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);

function shown(value) {
  if (Array.isArray(value)) return value.join(", ") || "none";
  const isLong = typeof value === "number" && !Number.isInteger(value);
  return String(isLong ? Number(value.toPrecision(4)) : value);
}

/** Who waited, of those who came, beside what is promised. */
function promiseKept({ promise, need }) {
  if (!promise?.came || !need?.probability) return "";
  const percent = (share) => `${Number((share * 100).toPrecision(2))} %`;
  const who = `${Math.round(promise.waited)} of the last ${Math.round(promise.came)} who came`;
  return `${who} found no free slot: ${percent(promise.share)}; promised are ${percent(need.probability)} at most.`;
}

/** Words of the scaler's record that are no sentence: its inputs, and what it decided. */
function drawScaler({ need, ...decided }) {
  const { peaks = [], ...reckoned } = need ?? {};
  const scaler = need ? { ...decided, need: reckoned } : decided;
  write(part("scaler-reason"), scaler.reason ?? "It has not decided yet.");
  write(part("scaler-peaks"), heldFor(peaks));
  write(part("scaler-promise"), promiseKept(scaler));
  const told = Object.entries(scaler).filter(([name]) => !["reason", "at", "since", "window", "peaks"].includes(name));
  const rows = told.flatMap(([name, value]) => isRecord(value)
    ? Object.entries(value).map(([inner, each]) => [`${worded(name)}: ${worded(inner)}`, shown(each)])
    : [[worded(name), shown(value)]]);
  const known = JSON.stringify(rows);
  if (part("scaler").dataset.known === known) return;
  part("scaler").dataset.known = known;
  part("scaler").replaceChildren(...rows.map(([name, value]) => {
    const row = element("div", {});
    row.append(element("dt", { textContent: name }), element("dd", { textContent: value }));
    return row;
  }));
}

// What an operator does

const enc = encodeURIComponent;

async function act(path) {
  await ask(path, { method: "POST", headers: { ...OPERATOR, "content-type": "application/json" }, body: "{}" });
  await refresh();
}

async function stop({ workspaceId, name, userId }) {
  const text = `${userId} is interrupted, and programs that run in it end. Its files are kept.`;
  if (await sure(`Stop ${name || workspaceId}?`, text, "Stop it")) await act(`/api/workspaces/${enc(workspaceId)}/stop`);
}

async function drain({ instanceId, seats }) {
  const people = seats.length
    ? `Nothing new comes to it. Who works there (${seats.length}) goes on until their workspace stops.`
    : "Nothing new comes to it.";
  const text = `${people} Once it is empty it is given back. The scaler does not undo this.`;
  if (await sure(`Drain ${instanceId}?`, text, "Drain it")) await act(`/api/machines/${enc(instanceId)}/drain`);
}

async function why({ workspaceId, name }) {
  const record = await ask(`/api/workspaces/${enc(workspaceId)}/activity`, { headers: OPERATOR });
  write(part("why-heading"), `Why ${name || workspaceId} is alive`);
  write(part("why-text"), record.text);
  const signals = record.signals.map((signal) => row([
    head(signal.kind, signal.source ?? ""), cell("Last seen", `${duration(signal.secondsAgo * 1000)} ago`),
    cell("Counts", signal.counts ? "yes" : "no"),
  ]));
  part("why-signals").replaceChildren(...signals);
  part("why-next").replaceChildren(...record.next.map((step) => {
    const at = step.at ? ` at ${new Date(step.at).toLocaleTimeString()}` : "";
    return element("li", { textContent: `${step.what}${at}${step.unless ? `, unless ${step.unless}` : ""}` });
  }));
  part("why").showModal();
}

/** Ask before people are interrupted; whether it was meant. */
function sure(heading, text, yes) {
  const dialog = part("confirm");
  write(part("confirm-heading"), heading);
  write(part("confirm-text"), text);
  write(part("confirm-yes"), yes);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// How it is drawn: only what says something else is replaced, so that nothing moves under a hand.

const latest = new Map(); // what each row shows now: its buttons may be older than its words

function fill(id, rows, keyOf, make, none) {
  const body = part(id);
  const old = new Map([...body.children].map((child) => [child.dataset.key, child]));
  const wanted = rows.map((item) => {
    const key = keyOf(item);
    latest.set(key, item);
    const made = row(make(item));
    Object.assign(made.dataset, { key, state: item.status ?? "" });
    return renewed(old.get(key), made);
  });
  if (!wanted.length) wanted.push(old.get("none") ?? emptyRow(none));
  const focused = document.activeElement;
  for (const [place, one] of wanted.entries()) {
    if (body.children[place] !== one) body.insertBefore(one, body.children[place] ?? null);
  }
  while (body.children.length > wanted.length) {
    latest.delete(body.lastElementChild.dataset.key);
    body.lastElementChild.remove();
  }
  if (focused !== document.activeElement) (focused.isConnected ? focused : part("heading")).focus();
}

/** The old row with those cells of the new one that say something else. */
function renewed(there, made) {
  if (!there) return made;
  there.dataset.state = made.dataset.state;
  for (const [place, cell] of [...made.children].entries()) {
    const known = there.children[place];
    if (known.innerHTML === cell.innerHTML) continue;
    const focused = known.contains(document.activeElement);
    known.replaceWith(cell);
    if (focused) (cell.querySelector("button") ?? part("heading")).focus();
  }
  return there;
}

function emptyRow(text) {
  const only = row([element("td", { className: "none", textContent: text, colSpan: 5 })]);
  only.dataset.key = "none";
  return only;
}

function row(cells) {
  const made = element("tr", {});
  made.append(...cells);
  return made;
}

function head(text, more = "") {
  const made = element("th", { scope: "row" });
  made.append(element("span", { textContent: text }), ...extra(more));
  return made;
}

function cell(label, text = "", more = "") {
  const made = element("td", {});
  made.dataset.label = label;
  if (text !== "" || more) made.append(element("span", { textContent: text }), ...extra(more));
  return made;
}

function extra(text) {
  return text ? [element("span", { className: "quiet", textContent: text })] : [];
}

function action(word, of, run) {
  const button = element("button", { type: "button", className: word === "Stop" || word === "Drain" ? "small danger" : "small", textContent: word });
  button.dataset.action = word;
  button.setAttribute("aria-label", `${word} ${of}`);
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true"); // its row is drawn anew after that
    try {
      problem("", "action");
      await run();
    } catch (error) {
      problem(error.message, "action");
    } finally {
      button.removeAttribute("aria-disabled");
    }
  });
  return button;
}

function element(kind, fields) {
  return Object.assign(document.createElement(kind), fields);
}

function money(amount, currency) {
  if (amount === null) return "see /api/usage";
  return new Intl.NumberFormat(undefined, { style: "currency", currency, maximumFractionDigits: amount < 1 ? 4 : 2 }).format(amount);
}

function write(target, text) {
  if (target.textContent !== String(text)) target.textContent = text;
}

/** Trouble of the stream goes when it works again; trouble of an action with the next one. */
function problem(text, from) {
  const box = part("problem");
  if (!text && box.dataset.from !== from) return;
  box.dataset.from = from;
  write(box, text);
  box.hidden = !text;
}

for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close(""));
}
live.start();
