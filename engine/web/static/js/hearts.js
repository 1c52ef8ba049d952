/**
 * Hearts that float up when somebody likes the room.
 *
 * Decides how many fly at once and draws them on one canvas, only while there are any. Does not count likes.
 */

import { reducedMotion } from "./dom.js";

const HEARTS_MAX = 48; // further ones are not drawn; the number on the button counts all
const LIFE_MS = 3_000;
const COLOURS = ["#ff4d6d", "#ff7a45", "#ffb84d", "#ff8fb3", "#c77dff", "#ff5f8f"];

export class Hearts {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.flying = [];
    this.shape = new Path2D("M0 9C-1 9-10 3-10-3.5A5.6 5.6 0 0 1 0-6.3A5.6 5.6 0 0 1 10-3.5C10 3 1 9 0 9Z");
    this.draw = this.draw.bind(this);
    new ResizeObserver(() => this._fit()).observe(canvas);
    this._fit();
  }

  /** Let `count` hearts rise from (x, y), in CSS pixels of the canvas; they start over `spread_ms`. */
  fly(x, y, count = 1, spreadMs = 0) {
    if (reducedMotion() || document.hidden) return;
    const idle = this.flying.length === 0;
    const now = performance.now();
    for (let i = 0; i < count && this.flying.length < HEARTS_MAX; i += 1) {
      this.flying.push({
        x, y, at: now + (spreadMs * i) / count, size: 0.9 + Math.random() * 0.7, sway: 20 - Math.random() * 170,
        rise: 300 + Math.random() * 280, turn: (Math.random() - 0.5) * 0.9, wave: 2 + Math.random() * 3,
        colour: COLOURS[Math.floor(Math.random() * COLOURS.length)],
      });
    }
    if (idle && this.flying.length) requestAnimationFrame(this.draw);
  }

  draw() {
    const { pen, canvas } = this;
    const now = performance.now();
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    this.flying = this.flying.filter((heart) => now - heart.at < LIFE_MS);
    for (const heart of this.flying) {
      const age = (now - heart.at) / LIFE_MS;
      if (age < 0) continue;
      const eased = 1 - (1 - age) ** 1.6;
      const grown = Math.min(1, age * 7) * heart.size * (1 - age * 0.15);
      const x = heart.x + heart.sway * eased + Math.sin(age * heart.wave * Math.PI) * 9;
      pen.setTransform(this.scale, 0, 0, this.scale, x * this.scale, (heart.y - heart.rise * eased) * this.scale);
      pen.rotate(heart.turn * age);
      pen.scale(grown, grown);
      pen.globalAlpha = age > 0.6 ? (1 - age) / 0.4 : 1;
      pen.fillStyle = heart.colour;
      pen.fill(this.shape);
      pen.globalAlpha *= 0.5;
      pen.fillStyle = "#fff";
      pen.beginPath();
      pen.ellipse(-4.6, -4, 2.1, 1.3, -0.6, 0, Math.PI * 2);
      pen.fill();
      pen.globalAlpha = 1;
    }
    if (this.flying.length) requestAnimationFrame(this.draw);
  }

  _fit() {
    this.scale = Math.min(devicePixelRatio || 1, 2);
    this.canvas.width = Math.round(this.canvas.clientWidth * this.scale);
    this.canvas.height = Math.round(this.canvas.clientHeight * this.scale);
  }
}
