/**
 * Who is on this page: room and token.
 *
 * Decides where the token comes from: the URL's fragment `#token=…` (taken off the address bar at once), else this
 * tab's storage (so that reloading works), else the demo's `POST /demo/token`. Fragments never reach a server, so a
 * token is never in a log. Does not read what is inside the token.
 */

import { t } from "./i18n.js";

const TOKEN_KEPT = (role, room) => `liveroom.token.${role}.${room}`;
const DEMO_VIEWER = (role, room) => `liveroom.demo.${role}.${room}`;

/** No token can be had: the page was opened without one and the engine is not a demo. */
export class NoToken extends Error {}

/** Return `{room, token, via, entry, renew, demo}` for the page `/r/{room}` or `/console/{room}`. */
export async function openSession(role) {
  const room = decodeURIComponent(location.pathname.split("/").filter(Boolean).at(-1) || "");
  const fragment = new URLSearchParams(location.hash.slice(1));
  const query = new URLSearchParams(location.search);
  const given = fragment.get("token");
  const common = { room, via: fragment.get("via") || undefined, entry: query.get("entry") || undefined };
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  if (given) sessionStorage.setItem(TOKEN_KEPT(role, room), given);

  const token = given || sessionStorage.getItem(TOKEN_KEPT(role, room));
  if (token) return { ...common, token, demo: false, renew: undefined };
  const renew = () => demoToken(role, room);
  return { ...common, token: await renew(), demo: true, renew };
}

/** Forget a token that was refused, so that the next load asks for a new one. */
export function forgetToken(role, room) {
  sessionStorage.removeItem(TOKEN_KEPT(role, room));
}

async function demoToken(role, room) {
  const name = t(`demo.${role}`, { n: 1 + Math.floor(Math.random() * 99) });
  const kept = JSON.parse(sessionStorage.getItem(DEMO_VIEWER(role, room)) || JSON.stringify({ name }));
  const response = await fetch("/demo/token", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ room, role, ...kept }),
  });
  if (!response.ok) throw new NoToken(String(response.status));
  const given = await response.json();
  // The same tab stays the same viewer after a reload.
  sessionStorage.setItem(DEMO_VIEWER(role, room), JSON.stringify({ viewer: given.viewer, name: given.name }));
  return given.token;
}

/** Address of the engine's WebSocket on the host that served this page. */
export function socketUrl() {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
}
