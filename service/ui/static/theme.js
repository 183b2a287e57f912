/** Light or dark colours: the system's, unless the user says otherwise. */

import { State } from "./state.js";

const KEPT = "engram-theme";
/** @typedef {"system" | "light" | "dark"} Theme */
const THEMES = /** @type {Theme[]} */ (["system", "light", "dark"]);

/** @returns {Theme} */
function kept() {
  try {
    return THEMES.find((one) => one === localStorage.getItem(KEPT)) ?? "system";
  } catch {
    return "system";
  }
}

/** @type {State<Theme>} */
export const theme = new State(kept());

/** Show the chosen colours. */
export function applyTheme() {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
}

/** Take the next choice; from the system's colours on it is the others, so that something is seen to change. */
export function nextTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const turn = /** @type {Theme[]} */ (dark ? ["system", "light", "dark"] : ["system", "dark", "light"]);
  theme.set(turn[(turn.indexOf(theme.value) + 1) % turn.length]);
  try {
    localStorage.setItem(KEPT, theme.value);
  } catch {
    // It is not kept, then.
  }
  applyTheme();
}
