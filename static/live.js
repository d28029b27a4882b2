/**
 * Follow news from the gateway: a stream of server-sent events while the tab is seen, polling otherwise.
 *
 * A browser opens six connections to one host over HTTP/1.1, streams included: hidden tabs that held one
 * each would lock the seventh tab out. A proxy on the way may also swallow streams; then polling goes on.
 */
export class Live {
  #source = null;
  #timer = 0;
  #failures = 0;
  #stopped = true;
  #turn = 0; // an answer that comes after the next start or stop is nobody's

  /**
   * stream: URL. types: names of events beside unnamed ones. onNews(data): called with each event's text.
   * poll(): asks once, may throw. onTrouble(problem): words, "" once it works again. every: ms between polls.
   */
  constructor({ stream, types = [], onNews, poll, onTrouble = () => {}, every = 5000 }) {
    Object.assign(this, { stream, types, onNews, poll, onTrouble, every });
    document.addEventListener("visibilitychange", () => this.#stopped || this.start());
    // A page with an open stream is not kept for the way back.
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", (event) => event.persisted && !this.#stopped && this.start());
  }

  start() {
    this.#stopped = false;
    this.#close();
    if (document.hidden) this.#poll();
    else this.#open();
  }

  stop() {
    this.#stopped = true;
    this.#close();
  }

  #close() {
    this.#turn += 1;
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #open() {
    const source = new EventSource(this.stream);
    this.#source = source;
    const heard = (event) => {
      this.#works();
      this.onNews(event.data);
    };
    source.onmessage = heard;
    for (const type of this.types) source.addEventListener(type, heard);
    source.onerror = () => {
      // Its own reconnecting gives up at the first answer that is no stream; ours does not.
      source.close();
      this.#failures += 1;
      this.#poll();
    };
    source.onopen = () => this.#works();
  }

  async #poll() {
    const turn = this.#turn;
    let problem = "";
    try {
      await this.poll();
    } catch (error) {
      problem = error.message;
    }
    if (turn !== this.#turn) return;
    this.onTrouble(problem);
    const wait = document.hidden ? this.every : Math.min(this.every, 500 * 2 ** this.#failures);
    this.#timer = setTimeout(() => this.start(), wait);
  }

  #works() {
    this.#failures = 0;
    this.onTrouble("");
  }
}
