/**
 * Sheets and cards that lie over the viewer page, one at a time.
 *
 * Decides focus: into the sheet when it opens, back where it was when it closes; Escape and the curtain close it.
 * What lies beneath is inert meanwhile.
 */

import { $ } from "./dom.js";

export class Sheets {
  constructor(face, curtain) {
    Object.assign(this, { face, curtain, open: null, before: null });
    curtain.addEventListener("click", () => this.hide());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.open) this.hide();
    });
    for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => this.hide());
  }

  show(id) {
    if (this.open === id) return;
    if (this.open) $(this.open).hidden = true;
    else this.before = document.activeElement;
    this.open = id;
    this.curtain.hidden = false;
    this.face.inert = true;
    $(id).hidden = false;
    ($(id).querySelector("[data-first]:not(:disabled)") || $(id).querySelector("button")).focus({ preventScroll: true });
  }

  hide() {
    if (!this.open) return;
    $(this.open).hidden = true;
    this.open = null;
    this.curtain.hidden = true;
    this.face.inert = false;
    if (this.before?.isConnected) this.before.focus({ preventScroll: true });
  }
}
