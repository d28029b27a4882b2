/** The home page: a person's workspaces, live. */

import { Live } from "./live.js";
import { ask, roughly, sentence, STATUS } from "./words.js";

const EVENTS = ["queued", "starting", "progress", "running", "stopping", "stopped", "failed", "terminating",
  "terminated", "created", "deleted", "snapshotted"].map((word) => `workspace.${word}`);
const ASLEEP = new Set(["stopped", "terminated", "failed"]);
const KEEPABLE = new Set(["stopped", "failed"]);
const STOPPABLE = new Set(["queued", "starting", "running"]);
const CLOCK_MS = 15_000;
const SOON_MS = 6 * 3600_000;

const part = (id) => document.getElementById(id);
const rows = new Map(); // workspace id → its list item
let workspaces = [];
let refreshing = 0;
let listed = false;

const live = new Live({
  stream: "/api/events",
  types: EVENTS,
  onNews: refreshSoon,
  poll: refresh,
  onTrouble: (text) => text && problem(text),
});

/** A boot is five or six events within moments: one look is enough for those that come together. */
function refreshSoon() {
  clearTimeout(refreshing);
  refreshing = setTimeout(() => refresh().catch((error) => problem(error.message)), 120);
}

let newest = 0;

async function refresh() {
  const asked = ++newest;
  const answer = await ask("/api/workspaces");
  if (asked !== newest) return; // a later look has been asked for: this one may be old
  workspaces = answer;
  if (part("problem").dataset.from === "refresh") problem("");
  draw();
}

function draw() {
  const ids = new Set(workspaces.map((workspace) => workspace.workspaceId));
  for (const [id, row] of rows) {
    if (ids.has(id)) continue;
    if (row.contains(document.activeElement)) part("heading").focus();
    row.remove();
    rows.delete(id);
  }
  workspaces.forEach((workspace, place) => {
    const row = rows.get(workspace.workspaceId) ?? makeRow(workspace.workspaceId);
    fill(row, workspace);
    const list = part("workspaces");
    // Moving an element takes its focus, so it is moved only when its place is another.
    if (list.children[place] !== row) list.insertBefore(row, list.children[place] ?? null);
  });
  part("empty").hidden = workspaces.length > 0;
  if (!listed) write(part("news"), "");
  listed = true;
}

function makeRow(id) {
  const row = part("row").content.firstElementChild.cloneNode(true);
  row.dataset.workspace = id;
  row.querySelector("h2").id = `name-${id}`;
  rows.set(id, row);
  const on = (name, act) => {
    const button = row.querySelector(`.${name}`);
    button.id = `${name}-${id}`;
    button.setAttribute("aria-labelledby", `${button.id} name-${id}`);
    button.addEventListener("click", () => busy(button, () => act(id)));
  };
  on("open", open);
  on("start", start);
  on("stop", stop);
  on("keep", keep);
  const download = row.querySelector(".download");
  download.id = `download-${id}`;
  download.setAttribute("aria-labelledby", `${download.id} name-${id}`);
  download.href = `/api/workspaces/${encodeURIComponent(id)}/download`;
  return row;
}

function fill(row, workspace) {
  const { workspaceId, name, status, lastActiveAt, stopsAt, keptUntil, queue, error, snapshotId } = workspace;
  const said = row.dataset.status;
  row.dataset.status = status;
  write(row.querySelector(".name"), name || workspaceId);
  write(row.querySelector(".id"), name ? workspaceId : "");
  write(row.querySelector(".word"), STATUS[status] ?? status);
  write(row.querySelector(".more"), queue?.position ? `place ${queue.position}, about ${queue.etaSeconds} s` : "");
  when(row.querySelector(".active"), lastActiveAt, (at) => `${roughly(Date.now() - at)} ago`, "never");
  row.querySelector(".stopping").hidden = status !== "running";
  when(row.querySelector(".stops"), stopsAt, (at) => roughly(at - Date.now()), "not planned");
  row.querySelector(".keeping").hidden = !KEEPABLE.has(status);
  when(row.querySelector(".kept"), keptUntil, (at) => roughly(at - Date.now()), "always");
  row.querySelector(".keeping").classList.toggle("soon", Boolean(keptUntil) && keptUntil - Date.now() < SOON_MS);
  const failure = row.querySelector(".error");
  failure.hidden = !(status === "failed" && error);
  write(failure, error ? sentence(error.message) : "");
  offer(row, status, Boolean(keptUntil), Boolean(snapshotId));
  if (said && said !== status) write(part("news"), `${name || workspaceId}: ${STATUS[status] ?? status}`);
}

/** Buttons that fit the status. The one with the focus leaves it to Open, which is always there. */
function offer(row, status, ends, saved) {
  const start = row.querySelector(".start");
  const stop = row.querySelector(".stop");
  const keep = row.querySelector(".keep");
  const download = row.querySelector(".download");
  const open = row.querySelector(".open");
  write(start, status === "failed" ? "Start again" : "Start");
  const buttons = [
    [start, ASLEEP.has(status)],
    [stop, STOPPABLE.has(status)],
    [keep, KEEPABLE.has(status) && ends],
    [download, ASLEEP.has(status) && saved],
  ];
  for (const [button, shown] of buttons) {
    if (!shown && button === document.activeElement) open.focus();
    button.hidden = !shown;
  }
  open.classList.toggle("primary", status === "running");
}

function when(element, at, words, none) {
  if (!at) return write(element, none);
  const time = element.querySelector("time") ?? document.createElement("time");
  time.dateTime = new Date(at).toISOString();
  time.title = new Date(at).toLocaleString();
  write(time, words(at));
  if (!time.isConnected) element.replaceChildren(time);
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function problem(text, from = "refresh") {
  part("problem").dataset.from = from;
  write(part("problem"), text);
  part("problem").hidden = !text;
}

/** Once at a time. aria-disabled and not disabled: a disabled button drops the focus. */
async function busy(button, act) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    problem("", "action");
    await act();
  } catch (error) {
    problem(error.message, "action");
  } finally {
    button.setAttribute("aria-disabled", "false");
  }
}

const post = (path, body = {}) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

async function open(id) {
  const { url } = await post(`/api/workspaces/${encodeURIComponent(id)}/enter`);
  location.assign(url);
}

async function start(id) {
  await post(`/api/workspaces/${encodeURIComponent(id)}/start`);
  await refresh();
}

async function stop(id) {
  const { name } = workspaces.find((workspace) => workspace.workspaceId === id) ?? {};
  write(part("stop-heading"), `Stop ${name || id}?`);
  if ((await answerOf(part("stop"))) !== "stop") return;
  await post(`/api/workspaces/${encodeURIComponent(id)}/stop`);
  await refresh();
}

async function keep(id) {
  await post(`/api/workspaces/${encodeURIComponent(id)}/keep`);
  await refresh();
  const { name, keptUntil } = workspaces.find((workspace) => workspace.workspaceId === id) ?? {};
  write(part("news"), `${name || id} is kept ${keptUntil ? `until ${new Date(keptUntil).toLocaleString()}` : "always"}.`);
}

/** Show a dialog and wait for the button; "" for Cancel and Escape. */
function answerOf(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}

/** A name is whose workspace it is: the same name again is the same workspace, so a new one needs a free name. */
function freeName() {
  const taken = new Set(workspaces.map((workspace) => workspace.name));
  if (!taken.has("")) return "";
  let number = 2;
  while (taken.has(`Workspace ${number}`)) number += 1;
  return `Workspace ${number}`;
}

function refuse(text) {
  write(part("create-problem"), text);
  part("create-problem").hidden = !text;
}

async function create(event) {
  event.preventDefault();
  const go = part("new");
  if (go.getAttribute("aria-disabled") === "true") return;
  go.setAttribute("aria-disabled", "true");
  refuse("");
  try {
    await refresh();
    const wanted = part("name").value.trim();
    if (wanted && workspaces.some((workspace) => workspace.name === wanted)) {
      throw new Error(`You have a workspace named ${wanted}. Open it from the list, or choose another name.`);
    }
    const { workspaceId } = await post("/api/workspaces", { name: wanted || freeName() });
    await open(workspaceId);
  } catch (error) {
    refuse(error.message);
    part("name").focus();
  } finally {
    go.setAttribute("aria-disabled", "false");
  }
}

part("create").addEventListener("submit", create);
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close(""));
}

refresh().catch((error) => {
  write(part("news"), "");
  problem(error.message);
});
live.start();
setInterval(() => listed && draw(), CLOCK_MS);
