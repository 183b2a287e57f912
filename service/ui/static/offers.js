/** The paths that this service has: screens of later ones are shown where their paths are there. */

import { json } from "./service.js";
import { State } from "./state.js";

/** @type {State<Set<string>>} */
export const offers = new State(new Set());

/** Whether the service has a path; it is asked once a visit. */
export async function learnOffers() {
  try {
    const document = await json("openapi.json");
    offers.set(new Set(Object.keys(document.paths)));
  } catch {
    // What cannot be known is not offered.
  }
}

// After the first screen: nobody waits for it.
setTimeout(learnOffers, 400);
