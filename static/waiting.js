/** The waiting page: follows a workspace's start and lands in the IDE at the address that was asked for. */

import { Live } from "./live.js";
import { ask, duration } from "./words.js";

const PROGRESS = "/_gateway/progress";
const LANDINGS = "ide-gateway-landings";
const CALM_MS = 60_000;

const page = document.getElementById("waiting");
const part = (id) => document.getElementById(id);
const rows = [...document.querySelectorAll("#steps li")];
const name = page.dataset.name;

let account = JSON.parse(page.dataset.account);
// "Waking …" or "Bringing back …", if that is what this visit began with.
const woken = !account.moving && (account.status === "queued" || account.status === "starting");
const starting = woken ? part("heading").textContent : `Starting ${name}`;
let ahead = 0; // our clock minus the gateway's, ms
let landing = 0;
const began = new Map(); // step → the gateway's ms
const took = new Map(); // step → ms

const live = new Live({
  stream: PROGRESS,
  onNews: (text) => show(JSON.parse(text)),
  poll: async () => show(await ask(PROGRESS)),
  onTrouble: problem,
});

function show(next) {
  if (next.status === "unavailable") return problem(next.message); // what was known stays on the page
  account = next;
  if (next.now) ahead = Date.now() - next.now;
  say(next);
  measure(next);
  draw();
  const failed = next.status === "failed";
  const asleep = next.status === "stopped" || next.status === "terminated";
  page.dataset.variant = failed ? "failed" : asleep ? "asleep" : "waiting";
  part("start").hidden = !(failed || asleep);
  write(part("start").querySelector("button"), failed ? "Start again" : "Start");
  part("copy").hidden = !failed;
  part("log").hidden = !next.log;
  write(part("log").querySelector("pre"), next.log ?? "");
  if (next.status === "running") land();
  else if (failed || next.status === "gone") live.stop();
}

/** Heading and message. The message is a live region: it is written only when it changes. */
function say({ status, message, moving }) {
  const headings = {
    stopping: `${name} is stopping`,
    terminating: `${name} is stopping`,
    stopped: `${name} is stopped`,
    terminated: `${name} is put away`,
    running: `Opening ${name}`,
    failed: `${name} has failed`,
    gone: "No such workspace",
  };
  write(part("heading"), moving ? `${name} is moving` : (headings[status] ?? starting));
  // What the visit found ("It was stopped; …") stays until the next step has something to say.
  if (!part("message").textContent.endsWith(message)) write(part("message"), message);
  document.title = `${part("heading").textContent} · ide-gateway`;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** When did each step begin and end? The record knows since when the status is; of steps we see the changes. */
function measure({ steps, status, step, since, now }) {
  for (const [key, state] of Object.entries(steps)) {
    if (state === "todo") {
      began.delete(key);
      took.delete(key);
    } else if (state === "now" && !began.has(key)) {
      const first = status !== "starting" || step === "" || step === "machine";
      began.set(key, first ? since : now);
    } else if (state === "done" && began.has(key) && !took.has(key)) {
      took.set(key, now - began.get(key));
    }
  }
  if (began.has("stop") && !("stop" in steps) && !took.has("stop")) took.set("stop", now - began.get("stop"));
}

function draw() {
  const gatewayNow = Date.now() - ahead;
  for (const row of rows) {
    const key = row.dataset.step;
    const state = account.steps[key] ?? (key === "stop" && took.has("stop") ? "done" : "");
    row.dataset.state = state;
    if (state === "now") row.setAttribute("aria-current", "step");
    else row.removeAttribute("aria-current");
    write(row.querySelector(".took"), words(key, state, gatewayNow));
  }
}

function words(key, state, gatewayNow) {
  if (state === "now") return key === "ready" ? "opening" : ticking(gatewayNow - began.get(key));
  if (state === "failed") return "failed";
  if (state === "done") return took.has(key) && key !== "ready" ? `done in ${duration(took.get(key))}` : "done";
  return "";
}

function ticking(ms) {
  return ms < 1000 ? "" : duration(ms);
}

/**
 * Reload, which is the IDE now. If it is this page again (the gateway and the IDE disagree), the next try
 * comes later and later, and after six nothing happens by itself.
 */
function land() {
  live.stop();
  if (landing) return;
  const tries = recentLandings();
  const slow = page.dataset.variant === "unanswered" || tries.length > 1;
  part("retry").hidden = !slow;
  if (tries.length > 6) return problem("The IDE still does not answer. Stop the workspace and start it again.");
  const wait = slow ? 2000 * 2 ** Math.max(0, tries.length - 1) : 0;
  landing = setTimeout(() => {
    remember([...tries, Date.now()]);
    location.reload();
  }, Math.min(wait, 16_000));
}

function recentLandings() {
  try {
    return JSON.parse(sessionStorage.getItem(LANDINGS) ?? "[]").filter((at) => Date.now() - at < CALM_MS);
  } catch {
    return []; // storage is off: then only the person's own reload counts
  }
}

function remember(landings) {
  try {
    sessionStorage.setItem(LANDINGS, JSON.stringify(landings));
  } catch {
    // As above.
  }
}

function problem(text) {
  write(part("problem"), text);
  part("problem").hidden = !text;
}

part("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    const next = await ask(event.target.action, { method: "POST" });
    problem("");
    began.clear();
    took.clear();
    // The button is about to go: the heading takes the focus, so that it is not lost.
    part("heading").focus();
    show(next);
    if (next.status !== "running") live.start();
  } catch (error) {
    problem(error.message);
  } finally {
    button.setAttribute("aria-disabled", "false");
  }
});

function diagnostics() {
  const { status, step, epoch, errorCode, error, since, log } = account;
  const lines = {
    workspace: page.dataset.workspace,
    address: location.origin + location.pathname, // without the query: it may hold a secret
    status: step ? `${status}, step ${step}` : status,
    epoch,
    since: since && new Date(since).toISOString(),
    error: errorCode ? `${errorCode}: ${error}` : error,
    now: new Date().toISOString(),
    browser: navigator.userAgent,
  };
  const told = Object.entries(lines).filter(([, value]) => value !== undefined && value !== "");
  const head = told.map(([key, value]) => `${key}: ${value}`).join("\n");
  return log ? `${head}\n\n${log}` : head;
}

part("copy").addEventListener("click", async () => {
  const text = diagnostics();
  try {
    await navigator.clipboard.writeText(text);
    write(part("copied"), "Copied");
    setTimeout(() => write(part("copied"), ""), 4000);
  } catch {
    // No clipboard outside secure contexts, or it was refused.
    part("diagnostics").hidden = false;
    const area = part("diagnostics").querySelector("textarea");
    area.value = text;
    area.select();
  }
});

if (page.dataset.variant === "unanswered") land();
else {
  show(account);
  if (!landing && account.status !== "failed") live.start();
}
setInterval(draw, 1000);
