/** The paths that this service has, alone and behind their methods: what later ones brought is shown where it is there. */

import { json } from "./service.js";
import { State } from "./state.js";

/** @type {State<Set<string>>} */
export const offers = new State(new Set());

/** Whether the service has a path; it is asked once a visit. */
export async function learnOffers() {
  try {
    const document = await json("openapi.json");
    const calls = Object.entries(document.paths).flatMap(([path, operations]) => [
      path,
      ...Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
    ]);
    offers.set(new Set(calls));
  } catch {
    // What cannot be known is not offered.
  }
}

// After the first screen: nobody waits for it.
setTimeout(learnOffers, 400);
