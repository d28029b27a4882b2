/** The shell: the IDE in a frame of this origin, at the address of the tab, and what its person is told over it. */

import { Control } from "./control.js";
import { listen } from "./input.js";

const account = JSON.parse(document.body.dataset.account);
const part = (id) => document.getElementById(id);
const OVER = new Set(["stopped", "terminated", "failed"]);
const SOON_MS = 330_000; // the first countdown is five minutes, and a look may be late
const WHY = {
  idle: "Nothing was done in it for a while. Its files are kept.",
  "job limit": "Its job has run for as long as jobs may. Its files are kept.",
  "max lifetime": "It has run for as long as it may. Its files are kept.",
  quota: "The running hours of its plan are used up. Its files are kept.",
  requested: "It was stopped on request. Its files are kept.",
};
const AWAY = {
  4401: "Your entry has run out. Reload this page to enter again.",
  4429: "This workspace is open in too many tabs. Close some, then reload this one.",
};
const HEADING = { stopped: "is stopped", terminated: "is put away", failed: "has failed" };

let state = null;
let behind = 0; // milliseconds by which our clock is behind the gateway's
let warned = null; // the notice of a stop that is at hand
let last = null; // the newest notice that says why it ended
let going = ""; // where the frame was last sent

const frame = document.createElement("iframe");
frame.allow = "clipboard-read; clipboard-write; fullscreen; camera; microphone; geolocation; "
  + "display-capture; autoplay; gamepad; midi; serial; usb; hid; screen-wake-lock";
frame.title = account.name;
frame.addEventListener("load", entered);
frame.src = location.href;
document.body.append(frame);

const channel = new URL(account.control, location.href);
channel.protocol = location.protocol === "https:" ? "wss:" : "ws:";
const control = new Control(channel.href, account.input, { onState, onNotice, onLink, onOver });
listen(window, seen);

function seen(event) {
  const counting = !part("countdown").hidden;
  // Whoever moves towards Stay must find it there: a click or a key says that they are here.
  if (counting && (event.type === "pointermove" || part("countdown").contains(event.target))) return;
  control.seen();
  if (!state?.canStay) return;
  warned = null; // what is done now moves the stop; if not, the next notice says so
  hideCountdown();
}

// What the frame shows is the tab's: its address, its title, its icon.

function entered() {
  const inner = frame.contentWindow;
  try {
    if (!inner.document) return;
  } catch {
    // A page that no frame may hold, or another origin's: the tab is all for it.
    if (going) location.assign(going);
    return;
  }
  follow();
  const { document: page } = inner;
  const head = page.head ?? page.documentElement; // a picture or XML has no head
  if (head) new inner.MutationObserver(mirror).observe(head, { childList: true, subtree: true, characterData: true });
  mirror();
  inner.navigation?.addEventListener("navigate", ({ destination, downloadRequest }) => {
    if (downloadRequest === null) going = destination.url;
  });
  inner.navigation?.addEventListener("currententrychange", follow);
  inner.addEventListener("hashchange", follow);
  inner.addEventListener("popstate", follow);
  if (document.activeElement === document.body || document.activeElement === frame) inner.focus();
}

function follow() {
  const { href } = frame.contentWindow.location;
  // Never an entry of our own: the frame's are the tab's already, so that Back goes back in the IDE.
  if (href.startsWith("http") && href !== location.href) history.replaceState(null, "", href);
}

function mirror() {
  const page = frame.contentDocument;
  if (page?.title) {
    document.title = page.title;
    frame.title = page.title;
  }
  const icon = page?.querySelector("link[rel~=icon]")?.href;
  const ours = document.querySelector("link[rel=icon]");
  if (icon && icon.startsWith(location.origin) && ours.href !== icon) {
    ours.removeAttribute("type");
    ours.href = icon;
  }
}

// What its person is told.

function onState(told) {
  state = told;
  behind = told.now - Date.now();
  if (OVER.has(told.status)) return over(told.status);
  draw();
}

function onNotice(notice) {
  if (notice.type === "workspace.stopping_soon") {
    warned = notice;
    part("said").textContent = notice.text;
    draw();
  } else if (/^workspace\.(stopped|failed|terminated)$/.test(notice.type)) {
    last = notice;
    if (state && OVER.has(state.status)) over(state.status);
  } else if (notice.type !== "workspace.stays") {
    part("notice-text").textContent = notice.text;
    part("notice").hidden = false;
  }
}

function onLink(up) {
  part("link").hidden = up;
}

function onOver(code) {
  const status = { 4410: "stopped", 4411: "terminated", 4404: "terminated", 4500: "failed" }[code];
  if (status) return over(status);
  part("link").textContent = AWAY[code] ?? "This tab is told nothing any more. Reload it to go on.";
  part("link").hidden = false;
}

function draw() {
  const left = state?.stopsAt ? state.stopsAt - Date.now() - behind : Infinity;
  const at = Number(warned?.data.at ?? 0);
  const shown = warned && state?.stopsAt && Math.abs(at - state.stopsAt) < 2000 && left < SOON_MS;
  if (!shown) return hideCountdown();
  part("left").textContent = clock(left);
  part("countdown-why").textContent = state.canStay
    ? (WHY[warned.data.reason] ?? WHY.idle)
    : `${WHY[warned.data.reason] ?? state.because ?? ""} Nothing that is done in it prevents that.`;
  part("stay").hidden = !state.canStay;
  part("countdown").hidden = false;
}

function hideCountdown() {
  if (part("countdown").hidden) return;
  const focused = part("countdown").contains(document.activeElement);
  part("countdown").hidden = true;
  part("said").textContent = "";
  if (focused && frame.isConnected) frame.contentWindow.focus();
}

function clock(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** Nothing in this tab sends anything any more, until a person asks. */
function over(status) {
  control.end();
  clearInterval(ticking);
  frame.remove();
  for (const id of ["countdown", "link", "notice"]) part(id).hidden = true;
  document.body.classList.add("over");
  document.title = `${account.name} ${HEADING[status]}`;
  part("stopped-heading").textContent = `“${account.name}” ${HEADING[status]}`;
  part("stopped-why").textContent = last?.text ?? WHY[state?.reason] ?? "Its files are kept.";
  const first = part("stopped").hidden;
  part("stopped").hidden = false;
  if (first) part("stopped-heading").focus();
}

part("stay").addEventListener("click", () => {
  if (!control.stay()) {
    part("countdown-why").textContent = "The connection to the gateway is lost. It is told as soon as it is back.";
    return;
  }
  warned = null;
  hideCountdown();
});
part("dismiss").addEventListener("click", () => {
  part("notice").hidden = true;
  if (frame.isConnected) frame.contentWindow.focus();
});
part("again").addEventListener("click", () => location.reload());
const ticking = setInterval(draw, 1000);
