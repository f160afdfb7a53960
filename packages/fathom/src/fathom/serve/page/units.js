/* Numbers as people read them. */

const WHOLE = new Intl.NumberFormat("en");

export const count = (n) => WHOLE.format(n);
export const percent = (share) => `${Math.round(100 * share)} %`;

export function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; n >= 1000 && at < units.length - 1; at++) n /= 1000;
  return `${at && n < 100 ? n.toPrecision(3) : Math.round(n)} ${units[at]}`;
}
