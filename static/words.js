/** Words for numbers and states: what people read on the pages. Everything here is pure. */

export const STATUS = {
  queued: "In the queue",
  starting: "Starting",
  running: "Running",
  stopping: "Stopping",
  stopped: "Stopped",
  terminating: "Being put away",
  terminated: "Put away",
  failed: "Failed",
};

/** 400 → "0.4 s", 12300 → "12 s", 65000 → "1 min 05 s", 5400000 → "1 h 30 min". */
export function duration(ms) {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 1) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${String(minutes % 60).padStart(2, "0")} min` : `${Math.floor(hours / 24)} days`;
}

/** The same, no finer than somebody wants to know who only glances: "just now", "12 min", "3 h". */
export function roughly(ms) {
  const minutes = Math.round(Math.max(0, ms) / 60000);
  if (minutes < 1) return ms < 10000 ? "a few seconds" : "under a minute";
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} days`;
}

/** The words of an answer that is no success: our own error, or what its number means. */
export async function problemOf(response) {
  try {
    const { error } = await response.json();
    if (error?.message) return sentence(error.message);
  } catch {
    // Not JSON: an answer of something between us and the gateway.
  }
  if (response.status === 401) return "Your entry has run out. Open a fresh entry address.";
  if (response.status === 429) return "Too many at once. Try again in half a minute.";
  if (response.status >= 500) return "The gateway has trouble just now. Try again in a few seconds.";
  return `The gateway answered ${response.status}. Reload this page and try again.`;
}

export function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(start) ? start : `${start}.`;
}

/** fetch whose failures are all an Error with words for a person. */
export async function ask(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { ...options, headers: { accept: "application/json", ...options.headers } });
  } catch {
    throw new Error("The gateway cannot be reached. Check the connection and try again.");
  }
  if (!response.ok) {
    throw Object.assign(new Error(await problemOf(response)), { status: response.status });
  }
  return response.status === 204 ? null : response.json();
}
