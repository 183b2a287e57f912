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

/** Take the next choice. */
export function nextTheme() {
  theme.set(THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length]);
  try {
    localStorage.setItem(KEPT, theme.value);
  } catch {
    // It is not kept, then.
  }
  applyTheme();
}
