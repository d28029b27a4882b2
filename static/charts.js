/** Small line charts as SVG. Each has its meaning in words beside it: nobody needs to see the line. */

const NS = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 72;

/** Points of a line over [from, to], as "x,y x,y": values as high as `top` touch the upper edge. Pure. */
export function points(samples, value, from, to, top) {
  const span = Math.max(1, to - from);
  return samples.map((sample) => {
    const x = ((sample.at - from) / span) * WIDTH;
    const y = HEIGHT - 2 - (value(sample) / Math.max(1, top)) * (HEIGHT - 6);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
}

/** "now 3, at most 5, at least 0 in 12 min". Pure. */
export function inWords(samples, value) {
  if (!samples.length) return "nothing yet";
  const values = samples.map(value);
  const minutes = Math.round((samples.at(-1).at - samples[0].at) / 60000);
  const within = minutes ? ` in ${minutes} min` : "";
  return `now ${values.at(-1)}, at most ${Math.max(...values)}, at least ${Math.min(...values)}${within}`;
}

export class Chart {
  /** bound(sample): a second, dashed line, such as the slots there are; or nothing. */
  constructor(title, value, bound = null) {
    Object.assign(this, { title, value, bound });
    this.element = document.createElement("figure");
    this.element.className = "card chart";
    this.caption = document.createElement("figcaption");
    this.svg = document.createElementNS(NS, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    [this.area, this.limit, this.line] = [["polygon", "area"], ["polyline", "bound"], ["polyline", "line"]].map(
      ([kind, name]) => {
        const shape = document.createElementNS(NS, kind);
        shape.setAttribute("class", name);
        this.svg.append(shape);
        return shape;
      },
    );
    this.element.append(this.caption, this.svg);
  }

  draw(samples) {
    const words = `${this.title}: ${inWords(samples, this.value)}`;
    if (this.caption.textContent !== words) this.caption.textContent = words;
    this.svg.setAttribute("aria-label", words);
    if (!samples.length) return;
    const [from, to] = [samples[0].at, samples.at(-1).at];
    const top = Math.max(1, ...samples.map(this.value), ...(this.bound ? samples.map(this.bound) : []));
    const line = points(samples, this.value, from, to, top);
    this.line.setAttribute("points", line.join(" "));
    const last = line.at(-1).split(",")[0];
    this.area.setAttribute("points", [`0,${HEIGHT}`, ...line, `${last},${HEIGHT}`].join(" "));
    if (this.bound) this.limit.setAttribute("points", points(samples, this.bound, from, to, top).join(" "));
  }
}
