/** What a person is told, and where: a box for each kind of notice and channel. A press is kept at once. */

import { ask } from "./words.js";

const TYPES = [
  ["workspace.stopping_soon", "A workspace stops soon"],
  ["workspace.stays", "It stays after all"],
  ["workspace.stopped", "It has stopped"],
  ["workspace.failed", "It has failed"],
  ["workspace.terminating_soon", "It is put away soon"],
  ["workspace.terminated", "It has been put away"],
  ["quota.alert", "Most of a quota is used"],
];
const CHANNELS = ["ide", "email"];
const ALWAYS = "workspace.stopping_soon"; // in the IDE it is the last chance to stay

const part = (id) => document.getElementById(id);
let known = null; // what the gateway last answered
let turn = Promise.resolve(); // one after another: each press sends the whole of it

function draw({ email, optOut }) {
  known = { email, optOut };
  part("mail").textContent = email
    ? `E-mail goes to ${email}.`
    : "No e-mail goes to you: the operators of this gateway have no address of yours.";
  for (const row of part("types").children) {
    for (const channel of CHANNELS) {
      const box = row.querySelector(`.${channel}`);
      const nowhere = channel === "email" && !email;
      box.checked = !nowhere && !(optOut[row.dataset.type] ?? []).includes(channel);
      box.disabled = nowhere || (channel === "ide" && row.dataset.type === ALWAYS);
    }
  }
}

/** All that is opted out of, with this box as it is now; other channels stay as they are. */
function without(type, channel, wanted) {
  const channels = new Set(known.optOut[type] ?? []);
  channels[wanted ? "delete" : "add"](channel);
  return { ...known.optOut, [type]: [...channels] };
}

async function change(type, channel, wanted, label) {
  part("notices-problem").hidden = true;
  try {
    const body = JSON.stringify({ optOut: without(type, channel, wanted) });
    const headers = { "content-type": "application/json" };
    draw(await ask("/api/preferences", { method: "PUT", headers, body }));
    const where = channel === "ide" ? "in the IDE" : "by e-mail";
    part("notices-news").textContent = `${label}: ${wanted ? "told" : "not told"} ${where}.`;
  } catch (error) {
    draw(known);
    part("notices-problem").textContent = error.message;
    part("notices-problem").hidden = false;
  }
}

function rowOf([type, label]) {
  const row = part("notice").content.firstElementChild.cloneNode(true);
  row.dataset.type = type;
  row.querySelector("th").textContent = label;
  for (const channel of CHANNELS) {
    const box = row.querySelector(`.${channel}`);
    box.setAttribute("aria-label", `${label}: ${channel === "ide" ? "in the IDE" : "by e-mail"}`);
    box.addEventListener("change", () => {
      const wanted = box.checked;
      turn = turn.then(() => change(type, channel, wanted, label));
    });
  }
  return row;
}

async function open() {
  if (!part("preferences").open || known) return;
  try {
    const found = await ask("/api/preferences");
    part("types").replaceChildren(...TYPES.map(rowOf));
    draw(found);
  } catch (error) {
    part("notices-problem").textContent = error.message;
    part("notices-problem").hidden = false;
  }
}

part("preferences").addEventListener("toggle", open);
part("notices").addEventListener("submit", (event) => event.preventDefault());
