/** What the key of this tab may do: what it may not is not offered, and said where it is asked for by its address. */

import { html } from "../vendor/preact.js";
import { Empty } from "./view.js";
import { key, keyChanges, ownKey } from "../service.js";
import { revived, State, useValue } from "../state.js";

/** @typedef {"predict" | "learn" | "admin"} Scope */

/** In ascending order: each includes those before it. @type {Scope[]} */
const SCOPES = ["predict", "learn", "admin"];

/** Who asks, as far as the service says it. @typedef {{ id?: string | null, name: string | null, scope: Scope }} Asker */

/** Null until it is known, and where the service does not tell: then everything is offered. @type {State<Asker | null>} */
export const asker = new State(/** @type {Asker | null} */ (null));

async function learnAsker() {
  const used = key();
  const found = await ownKey();
  if (key() === used) asker.set(found);
}

keyChanges.follow(learnAsker);
revived.follow(learnAsker);
learnAsker();

/** Whether this tab may do what takes such a scope. @param {Scope} scope */
export function useMay(scope) {
  const who = useValue(asker);
  return who === null || SCOPES.indexOf(who.scope) >= SCOPES.indexOf(scope);
}

/** What only those see who may do it. @param {{ scope: Scope, children: any }} given */
export function May({ scope, children }) {
  return useMay(scope) ? children : null;
}

/** A screen for those who may; the others are told what it takes. @param {{ scope: Scope, what: string, children: any }} given */
export function Needs({ scope, what, children }) {
  const who = useValue(asker);
  if (useMay(scope)) return children;
  return html`
    <${Empty} title="This key may not do that">
      <p>${what} takes a key with the scope <code>${scope}</code>; ${who?.name ?? "this one"} has <code>${who?.scope}</code>.
        Whoever runs the service makes another one. “Forget key” above, and give that.</p>
    <//>
  `;
}
