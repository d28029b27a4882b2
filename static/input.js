/** Whether a person is at it: keys, pointer and touch in a window and in the frames of its origin inside it.
 * What was typed is never looked at. */

const EVENTS = ["keydown", "pointerdown", "wheel", "touchstart", "pointermove"];
const MOVED = 8; // pixels: a mouse that lies on a trembling table moves by less

/** Document → what puts our listeners on its window. Kept, so that none is there twice. */
const known = new WeakMap();

/** Call `seen` with the event of each sign of a person in that window, and in frames that come to it later. */
export function listen(window, seen) {
  const { document } = window;
  const again = known.get(document);
  if (again) return again(); // document.open() takes listeners away and leaves the document
  let from = null;
  const onEvent = (event) => {
    if (!event.isTrusted) return;
    if (event.type === "pointermove") {
      const { screenX: x, screenY: y } = event;
      from ??= { x, y };
      if (Math.hypot(x - from.x, y - from.y) < MOVED) return;
      from = { x, y };
    }
    seen(event);
  };
  const attach = () => {
    for (const type of EVENTS) window.addEventListener(type, onEvent, { capture: true, passive: true });
  };
  known.set(document, attach);
  attach();
  const enter = (frame) => {
    const inside = () => {
      const inner = windowOf(frame);
      if (inner) listen(inner, seen);
    };
    frame.addEventListener("load", inside);
    inside();
  };
  for (const frame of document.querySelectorAll("iframe")) enter(frame);
  new window.MutationObserver((changes) => {
    for (const change of changes) {
      for (const node of change.addedNodes) {
        if (node.nodeName === "IFRAME") enter(node);
        else if (node.querySelectorAll) node.querySelectorAll("iframe").forEach(enter);
      }
    }
  }).observe(document, { childList: true, subtree: true });
}

/** The frame's window if it is of our origin. */
function windowOf(frame) {
  try {
    return frame.contentWindow?.document ? frame.contentWindow : null;
  } catch {
    return null; // another origin's
  }
}
