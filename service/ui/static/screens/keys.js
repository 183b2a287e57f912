/** Keys: who may ask this service for what; a secret is shown once. */

import { html, useState } from "../vendor/preact.js";
import { Asking } from "../parts/dialog.js";
import { asker } from "../parts/permission.js";
import { Empty, Loaded, Mark, Moment, Section, Title, Trouble } from "../parts/view.js";
import { all, ask, json, keepKey, path } from "../service.js";
import { announce, useLoaded, useValue } from "../state.js";
import { clock } from "../words.js";

/** @typedef {import("../service.js").Json} Json */

const SCOPES = [
  ["predict", "Ask", "Answers, heatmaps, and reading what models are."],
  ["learn", "Teach", "Also have tasks learned, and follow jobs."],
  ["admin", "Administer", "Also make and delete models, activate versions, and manage keys."],
];

export function Keys() {
  const keys = useLoaded((signal) => all("v1/keys", "keys", { signal }), []);
  const [made, setMade] = useState(/** @type {Json | null} */ (null));
  const [making, setMaking] = useState(false);
  const done = (/** @type {Json} */ key) => {
    // From the first key on, everybody needs one: whoever made it goes on with it.
    if (keys.data?.length === 0) keepKey(key.token);
    setMade(key);
    setMaking(false);
    announce("The key is made; its secret is shown once");
    keys.reload();
  };
  return html`
    <${Title} name="Keys">${!making && html`<button type="button" class="primary"
      onClick=${() => setMaking(true)}>Make a key</button>`}<//>
    ${made && html`<${Secret} of=${made} close=${() => setMade(null)} />`}
    ${making && html`<${Make} first=${keys.data?.length === 0} done=${done} close=${() => setMaking(false)} />`}
    <${Loaded} of=${keys}>
      ${(/** @type {Json[]} */ found) =>
        found.length === 0
          ? !making &&
            html`<${Empty} title="No keys">
              <p>Until there is one, whoever reaches this service on its own machine may do everything. From the first on, everybody needs one: the first one is yours, of the scope admin, and this tab goes on with it.</p>
                <//>`
          : html`<${Table} keys=${found} again=${keys.reload} />`}
    <//>
  `;
}

/** The words and kinds of marks of a key's states. @type {Record<string, [string, string]>} */
const STATES = { valid: ["good", "in force"], expired: ["warn", "over"], revoked: ["bad", "revoked"] };

/** What revoking a key means, for whoever asks for it with the key `own`. @param {Json} key @param {Json[]} keys @param {string | null | undefined} own */
function consequence(key, keys, own) {
  const admins = keys.filter((one) => one.scope === "admin" && one.state === "valid");
  const last = admins.length === 1 && admins[0].id === key.id;
  return [
    key.id === own ? "It is the key of this tab, which is refused from then on." : "Whoever uses it is refused within seconds.",
    last && "No other key may administer: then only somebody on the service's machine can make one, by engram keys create.",
    "This cannot be taken back.",
  ]
    .filter(Boolean)
    .join(" ");
}

/** @param {{ keys: Json[], again: () => void }} given */
function Table({ keys, again }) {
  const own = useValue(asker)?.id;
  return html`
    <div class="card flush"><table class="wide">
      <caption class="hidden">Keys</caption>
      <thead><tr><th scope="col">Name</th><th scope="col">Scope</th><th scope="col">Made</th><th scope="col">Ends</th>
        <th scope="col">State</th><th scope="col"><span class="hidden">Acts</span></th></tr></thead>
      <tbody>
        ${keys.map(
          (/** @type {Json} */ key) => html`
          <tr key=${key.id}>
            <th scope="row">${key.name}<small><code>${key.id}</code></small></th>
            <td data-name="Scope">${key.scope}</td>
            <td data-name="Made"><${Moment} at=${key.created_at} /></td>
            <td data-name="Ends">${key.expires_at ? clock(key.expires_at) : "never"}</td>
            <td data-name="State"><${Mark} kind=${STATES[key.state]?.[0]}>${STATES[key.state]?.[1] ?? key.state}<//>
              </td>
            <td class="figure">${key.state !== "revoked" && html`<${Asking} label="Revoke" kind="danger"
              title=${`Revoke ${key.name}?`} act=${() => ask(`v1/keys/${path(key.id)}`, { method: "DELETE" })}
                done=${again} question=${consequence(key, keys, own)} />`}</td>
          </tr>
        `,
        )}
      </tbody>
    </table></div>
  `;
}

/** When a key ends whose last day this is, here. @param {string} day */
function ends(day) {
  return day ? { expires_at: new Date(`${day}T23:59:59`).toISOString() } : {};
}

/** @param {{ first: boolean, done: (result?: any) => void, close: () => void }} given */
function Make({ first, done, close }) {
  const [name, setName] = useState("");
  const [scope, setScope] = useState(first ? "admin" : "predict");
  const [until, setUntil] = useState("");
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setProblem(null);
    try {
      done(await json("v1/keys", { method: "POST", json: { name: name.trim(), scope, ...ends(until) } }));
    } catch (error) {
      setProblem(error);
    }
  };
  return html`
    <${Section} title="A new key">
      <form onSubmit=${submit}>
        <label class="field"><span>Whose it is</span>
          <input name="name" required maxlength="100" autocomplete="off" placeholder="line-3-camera" value=${name}
            onInput=${(/** @type {any} */ event) => setName(event.target.value)} /></label>
        <fieldset class="choices three"><legend>What it may do</legend>
          ${SCOPES.map(
            ([value, label, why]) => html`
            <label class="choice"><input type="radio" name="scope" value=${value} checked=${scope === value}
              disabled=${first && value !== "admin"} onChange=${() => setScope(value)} />
              <span><strong>${label}</strong> <code>${value}</code><small>${why}</small></span></label>
          `,
          )}
        </fieldset>
        ${first && html`<p class="note">The first key administers, since only such a key can make others.</p>`}
        <label class="field"><span>Its last day, if it has one</span>
          <input type="date" name="until" value=${until}
            onInput=${(/** @type {any} */ event) => setUntil(event.target.value)} /></label>
        <${Trouble} problem=${problem} />
        <div class="acts"><button type="button" onClick=${close}>Leave it</button>
          <button type="submit" class="primary">Make it</button></div>
      </form>
    <//>
  `;
}

/** @param {{ of: any, close: () => void }} given */
function Secret({ of, close }) {
  const secret = of.token;
  const [copied, setCopied] = useState(false);
  const copy = () => navigator.clipboard?.writeText(secret).then(() => setCopied(true));
  return html`
    <${Section} title=${`The key ${of.name}`} note="It is shown this once, and stored nowhere: copy it now.">
      <code class="secret">${secret}</code>
      <div class="acts end">${navigator.clipboard && html`<button type="button" onClick=${copy}>
        ${copied ? "Copied" : "Copy"}</button>`}
          <button type="button" class="primary" onClick=${close}>I have it</button></div>
    <//>
  `;
}
