/**
 * Building elements without markup in strings.
 *
 * Everything a person typed reaches the page through `textContent`. Does not know rooms or the protocol.
 */

import { ICONS } from "./icons.js";

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/**
 * Return a new element. `props` are set as properties, except `class`, `data` (dataset) and `attrs` (attributes);
 * a function under `onclick` and the like becomes the handler. Children are nodes, texts, or null for nothing.
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  const { class: names, data, attrs, ...rest } = props;
  if (names) node.className = names;
  if (data) Object.assign(node.dataset, data);
  for (const [name, value] of Object.entries(attrs || {})) node.setAttribute(name, value);
  Object.assign(node, rest);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Return an icon of `icons.js` as inline SVG, hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  for (const [d, filled] of ICONS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    path.classList.add(filled ? "fill" : "line");
    svg.append(path);
  }
  return svg;
}

/** Fill every `data-icon` place under `root`. */
export function fillIcons(root = document) {
  for (const node of root.querySelectorAll("[data-icon]")) node.prepend(icon(node.dataset.icon));
}

/** Show the text if it differs from what is shown: an unchanged text costs no layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A number from a text, the same every time: colours of names and covers. */
export function hashOf(text) {
  let hash = 2166136261;
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619);
  return hash >>> 0;
}

/** Return a round picture of a person: the avatar, or the first character of the name on a colour of its own. */
export function avatar({ id, name, avatar: url }) {
  const node = el("span", { class: `avatar tone-${hashOf(id || name) % 8}`, attrs: { "aria-hidden": "true" } });
  node.textContent = Array.from(name || "?")[0];
  if (isHttps(url)) node.append(picture(url));
  return node;
}

// The drawn goods, by the first word of an item's id or else the words in its title; what fits none is a gift.
const GOODS = [
  ["tea", /茶|普洱|观音|乌龙|龙井|tea/i], ["orange", /橙|橘|柑|柚|果|orange|fruit/i], ["honey", /蜜|糖|酱|honey|jam/i],
  ["bowl", /盏|杯|碗|壶|瓷|bowl|cup|mug/i], ["noodle", /面|粉|米|饼|noodle|rice/i],
];

/** Return a picture of goods: the cover, or beneath it a drawn one that suits the title. */
export function cover({ item = "", title = "", cover: url }) {
  // Of several words the last decides: 茶杯 is a cup.
  const places = GOODS.map(([name, word]) => [name, lastIndex(title, word)]).filter(([, at]) => at >= 0);
  const byId = [...GOODS, ["gift"]].find(([word]) => item.startsWith(word));
  const [name] = byId || places.sort((a, b) => b[1] - a[1])[0] || ["gift"];
  const node = el("span", { class: `cover cover-${name}`, attrs: { "aria-hidden": "true" } });
  if (isHttps(url)) node.append(picture(url));
  return node;
}

function lastIndex(text, word) {
  let last = -1;
  for (const match of text.matchAll(new RegExp(word.source, "gi"))) last = match.index;
  return last;
}

export function isHttps(url) {
  return typeof url === "string" && url.startsWith("https://");
}

/** Hand at most one call of `render` to each animation frame, however often the returned function is called. */
export function perFrame(render) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      render();
    });
  };
}

export const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function picture(url) {
  // A picture that does not load leaves what is drawn beneath it.
  return el("img", { src: url, alt: "", loading: "lazy", referrerPolicy: "no-referrer", onerror: (e) => e.target.remove() });
}
