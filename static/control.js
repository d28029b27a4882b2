/** The control channel (docs/control-channel.md): tells that a person is here, hears state and notices. */

import { decode, encode } from "./msgpack.js";

const AGAIN_MS = [1000, 2000, 5000, 10_000, 30_000];
/** After these a client may come back by itself; after the others only when a person asks. */
const COME_BACK = new Set([1001, 1005, 1006, 1011, 1012, 1013]);
const SEEN_EVERY_MS = 10_000;
const OLD_MS = 60_000;

export class Control {
  /** input: where it is told without the channel that a person is here.
   * onState(state), onNotice(notice), onLink(up), onOver(code): nothing comes any more. */
  constructor(url, input, { onState, onNotice, onLink, onOver }) {
    Object.assign(this, { url, input, onState, onNotice, onLink, onOver });
    this.ended = false;
    this.alone = false; // the channel does not come about, or not again
    this.seq = 0;
    this.tries = 0;
    this.seenAt = -Infinity; // the newest input, told or not
    this.toldAt = -Infinity;
    this.staying = false; // somebody pressed Stay, and it could not be told yet
    this.socket = null;
    this.open();
  }

  open() {
    const socket = new WebSocket(this.url, "ide-gateway.v1");
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.send({ t: "hello", seq: this.seq, client: "shell" });
      const pending = this.seenAt > this.toldAt && performance.now() - this.seenAt < OLD_MS;
      if (this.staying) this.stay();
      else if (pending) this.tell();
    };
    socket.onmessage = ({ data }) => this.hear(decode(data));
    socket.onclose = ({ code }) => this.closed(code);
    this.socket = socket;
  }

  hear(message) {
    if (message.t === "state") {
      this.tries = 0;
      this.alone = false;
      this.onLink(true);
      this.onState(message);
    } else if (message.t === "notice") {
      this.seq = message.seq;
      this.onNotice(message);
    }
  }

  closed(code) {
    if (this.socket === null) return;
    this.socket = null;
    this.alone = !COME_BACK.has(code) || this.tries > 0;
    if (!COME_BACK.has(code)) {
      this.onOver(code);
      return;
    }
    this.onLink(false);
    const pause = AGAIN_MS[Math.min(this.tries, AGAIN_MS.length - 1)];
    this.tries += 1;
    this.timer = setTimeout(() => this.open(), pause * (0.5 + Math.random()));
  }

  /** A person used keys, pointer or touch: told at once, then at most once in ten seconds. */
  seen() {
    this.seenAt = performance.now();
    if (this.seenAt - this.toldAt >= SEEN_EVERY_MS) this.tell();
  }

  tell() {
    if (this.send({ t: "seen", kind: "input" })) this.toldAt = performance.now();
    else this.post();
  }

  /** Without the channel, by a request of its own: some networks let no WebSocket through. */
  post() {
    if (this.ended || !this.alone) return;
    this.toldAt = performance.now();
    fetch(this.input, { method: "POST" }).catch(() => {
      // The gateway is away; what is typed next is told again.
    });
  }

  /** Whether it could be told. If not it is, as soon as the channel is back. */
  stay() {
    this.staying = !this.send({ t: "stay" });
    return !this.staying;
  }

  send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(encode(message));
    return true;
  }

  end() {
    this.ended = true;
    clearTimeout(this.timer);
    const { socket } = this;
    this.socket = null;
    socket?.close();
  }
}
