/**
 * Numbers, money and moments as people read them.
 *
 * Pure text: no DOM. Money comes in integer cents and never becomes a fraction of a number on the way.
 */

const lang = () => (globalThis.document?.documentElement.lang || "zh-CN");

/** 990 → "9.9", 129900 → "1299", 1 → "0.01": a price without needless zeros. */
export function yuan(cents) {
  const whole = Math.trunc(cents / 100);
  const rest = Math.abs(cents % 100);
  if (rest === 0) return String(whole);
  return `${whole}.${String(rest).padStart(2, "0").replace(/0$/, "")}`;
}

/** 990 → "9.90": an amount that was paid or won. */
export function yuanExact(cents) {
  return `${Math.trunc(cents / 100)}.${String(Math.abs(cents % 100)).padStart(2, "0")}`;
}

/** "12.5" → 1250; null when it is not an amount of at most two decimals. No floats on the way. */
export function parseCents(text) {
  const match = /^(\d{1,9})(?:\.(\d{1,2}))?$/.exec(text.trim());
  return match ? Number(match[1]) * 100 + Number((match[2] || "").padEnd(2, "0")) : null;
}

/** 48211 → "4.8万" in Chinese, "48.2k" in English; below ten thousand in full. */
export function count(n) {
  if (n < 10_000) return String(n);
  const [unit, sign] = lang().startsWith("zh")
    ? (n < 100_000_000 ? [10_000, "万"] : [100_000_000, "亿"])
    : (n < 1_000_000 ? [1_000, "k"] : [1_000_000, "M"]);
  const tenths = Math.floor((n * 10) / unit);
  return `${Math.floor(tenths / 10)}${tenths % 10 ? `.${tenths % 10}` : ""}${sign}`;
}

/** 65000 → "01:05", 3665000 → "1:01:05". Rounds up, so that a countdown shows 00:00 only when it is over. */
export function countdown(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const two = (n) => String(n).padStart(2, "0");
  const tail = `${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  return seconds < 3600 ? tail : `${Math.floor(seconds / 3600)}:${tail}`;
}

/** Time of day of a moment, "20:05" or with `seconds` "20:05:09". */
export function clockTime(ms, seconds = false) {
  const options = { hour: "2-digit", minute: "2-digit", hour12: false, ...(seconds && { second: "2-digit" }) };
  return new Date(ms).toLocaleTimeString(lang(), options);
}

/** Bytes of a text in UTF-8. */
export function utf8Bytes(text) {
  return new TextEncoder().encode(text).length;
}

/** Code points of a text: what the protocol's limits count. */
export function codePoints(text) {
  return Array.from(text).length;
}
