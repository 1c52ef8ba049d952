/**
 * A list that new rows flow into: comments on both pages.
 *
 * Decides how many rows stay in the document, writes all rows of one animation frame together, and follows the newest
 * row unless the reader has scrolled away. Does not know what a row says: the caller renders it.
 */

import { perFrame } from "./dom.js";

const ROWS_MAX = 80; // older rows leave the document
const NEAR_END_PX = 48; // a reader this close to the end is following

export class LiveList {
  /**
   * @param scroller element that scrolls and holds the rows
   * @param render   (value) => row element
   * @param onUnseen (count) how many rows came while the reader was scrolled away
   */
  constructor(scroller, render, onUnseen) {
    Object.assign(this, { scroller, render, onUnseen, waiting: [], unseen: 0, following: true });
    this.flush = perFrame(() => this._write());
    let before = 0;
    scroller.addEventListener("scroll", () => {
      const nearEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END_PX;
      // Only a reader moves back: being far from the end for any other reason is not a wish to stop following.
      if (nearEnd) this.following = true;
      else if (scroller.scrollTop < before) this.following = false;
      before = scroller.scrollTop;
      if (this.following && this.unseen) this._setUnseen(0);
    }, { passive: true });
    new ResizeObserver(() => this.following && this.toEnd()).observe(scroller);
  }

  /** Add a value at the end with the next frame. More than the cap at once: only the newest are kept. */
  push(value) {
    this.waiting.push(value);
    if (this.waiting.length > ROWS_MAX) this.waiting.shift();
    this.flush();
  }

  /** Replace everything. */
  reset(values) {
    this.scroller.replaceChildren();
    this.waiting = values.slice(-ROWS_MAX);
    this._setUnseen(0);
    this.following = true;
    this.flush();
  }

  /** Remove rows whose `data-id` is `id`, and values not yet written for which `matches` holds. */
  remove(id, matches) {
    this.waiting = this.waiting.filter((value) => !matches(value));
    for (const row of [...this.scroller.children]) if (row.dataset.id === String(id)) row.remove();
  }

  /** Show the newest row and follow it again. */
  toEnd() {
    this.following = true;
    this._setUnseen(0);
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  _write() {
    const rows = this.waiting.map(this.render);
    this.waiting = [];
    this.scroller.append(...rows);
    // A reader who scrolled back keeps the rows being read for as long as they fit twice.
    const most = this.following ? ROWS_MAX : ROWS_MAX * 2;
    while (this.scroller.childElementCount > most) this.scroller.firstElementChild.remove();
    if (this.following) this.scroller.scrollTop = this.scroller.scrollHeight;
    else this._setUnseen(this.unseen + rows.length);
  }

  _setUnseen(count) {
    this.unseen = count;
    this.onUnseen(count);
  }
}
