/** Addresses of the screens: they stand behind the `#`, so that the service needs to know none of them. */

import { State } from "./state.js";

/** The parts of the address behind `#/`, decoded. @returns {string[]} */
function read() {
  const [path] = location.hash.replace(/^#\/?/, "").split("?");
  try {
    return path.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return [];
  }
}

/** The screen that is shown. @type {State<string[]>} */
export const route = new State(read());

addEventListener("hashchange", () => route.set(read()));

/** The address of a screen. @param {string[]} parts */
export function to(...parts) {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

/** Show another screen. @param {string[]} parts */
export function go(...parts) {
  location.hash = to(...parts);
}
