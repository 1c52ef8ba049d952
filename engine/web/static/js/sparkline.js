/** A small curve of the last values of one number, as SVG. Keeps at most `POINTS_MAX` values. */

const SVG = "http://www.w3.org/2000/svg";
const POINTS_MAX = 120;
const [WIDTH, HEIGHT] = [100, 40];

export class Sparkline {
  constructor() {
    this.values = [];
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("aria-hidden", "true");
    this.svg.classList.add("spark");
    [this.area, this.line] = ["area", "line"].map((name) => {
      const path = document.createElementNS(SVG, "path");
      path.classList.add(name);
      this.svg.append(path);
      return path;
    });
  }

  /** Add the newest value and draw. */
  push(value) {
    this.values.push(value);
    if (this.values.length > POINTS_MAX) this.values.shift();
    if (this.values.length < 2) return;
    const low = Math.min(...this.values);
    const span = Math.max(1, Math.max(...this.values) - low);
    const step = WIDTH / (this.values.length - 1);
    const points = this.values.map((v, i) => `${(i * step).toFixed(1)} ${(HEIGHT - 3 - ((v - low) / span) * (HEIGHT - 6)).toFixed(1)}`);
    this.line.setAttribute("d", `M${points.join("L")}`);
    this.area.setAttribute("d", `M0 ${HEIGHT}L${points.join("L")}L${WIDTH} ${HEIGHT}Z`);
  }
}
