/** Audit: who changed what, the newest first. */

import { html, useState } from "../vendor/preact.js";
import { Empty, Loaded, Title } from "../parts/view.js";
import { all, json } from "../service.js";
import { useLoaded } from "../state.js";
import { to } from "../routes.js";
import { clock } from "../words.js";

/** @typedef {import("../service.js").Json} Json */

const PAGE = 100;
const ACTIONS = [
  "create",
  "adopt",
  "learn",
  "cancel",
  "widen",
  "decode",
  "publish",
  "activate",
  "reject",
  "rename",
  "delete",
  "create_key",
  "revoke_key",
  "add_backbone",
  "delete_backbone",
];

export function Audit() {
  const [model, setModel] = useState("");
  const [action, setAction] = useState("");
  const [before, setBefore] = useState(/** @type {string[]} */ ([]));
  const after = before[before.length - 1];
  const entries = useLoaded(
    (signal) => json("v1/audit", { query: { model: model.trim(), action: action.trim(), after, limit: PAGE }, signal }),
    [model, action, after],
  );
  const keys = useLoaded((signal) => all("v1/keys", "keys", { signal }), []);
  const names = new Map((keys.data ?? []).map((/** @type {Json} */ one) => [one.id, one.name]));
  const filter = (/** @type {(given: string) => void} */ set) => (/** @type {any} */ event) => {
    setBefore([]);
    set(event.target.value);
  };
  return html`
    <${Title} name="Audit" />
    <div class="fields">
      <label class="field"><span>Model</span><input type="search" value=${model} onChange=${filter(setModel)} /></label>
      <label class="field"><span>What was done</span><select value=${action} onChange=${filter(setAction)}>
        <option value="">anything</option>${ACTIONS.map((one) => html`<option value=${one}>${worded(one)}</option>`)}</select></label>
    </div>
    <${Loaded} of=${entries}>
      ${(/** @type {Json} */ found) => {
        const list = found.entries;
        return list.length === 0
          ? html`<${Empty} title="Nothing here">
            <p>Every change is written down: what was learned, activated, made and deleted, and by whom.</p><//>`
          : html`
            <div class="card flush"><table class="wide">
              <caption class="hidden">Audit</caption>
              <thead><tr><th scope="col">What</th><th scope="col">Model</th><th scope="col">Who</th>
                <th scope="col">When</th><th scope="col">Details</th></tr></thead>
              <tbody>${list.map(
                (/** @type {Json} */ one) => html`
                <tr>
                  <th scope="row">${worded(one.action)}</th>
                  <td data-name="Model">${one.model ? html`<a href=${to("models", one.model)}>${one.model}</a>` : "–"}
                    </td>
                  <td data-name="Who">${who(one)}</td>
                  <td data-name="When">${clock(one.at)}</td>
                  <td data-name="Details" class="note">${details(one, names)}</td>
                </tr>`,
              )}</tbody>
            </table></div>
            <div class="acts end">
              ${before.length > 0 && html`<button type="button"
                onClick=${() => setBefore(before.slice(0, -1))}>Newer</button>`}
              ${found.next && html`<button type="button"
                onClick=${() => setBefore([...before, found.next])}>Older</button>`}
            </div>
          `;
      }}
    <//>
  `;
}

/** Who asked. @param {Json} entry */
function who(entry) {
  if (entry.by === null) return "–";
  return entry.by.kind === "anonymous" ? "without a key" : (entry.by.name ?? entry.by.id ?? entry.by.kind);
}

/** What was done, in the words of the page. @param {string} action */
function worded(action) {
  return action === "publish" ? "change approval" : action.replaceAll("_", " ");
}

const DETAILS = ["task", "version", "target", "job", "key", "backbone"];

/** What else an entry says. @param {Json} entry @param {Map<string, string>} names of keys by their ids */
function details(entry, names) {
  return DETAILS.filter((name) => entry[name] !== null && entry[name] !== undefined)
    .map((name) => {
      const said = name === "key" && names.has(entry.key) ? `${names.get(entry.key)} (${entry.key})` : entry[name];
      return `${name === "target" ? "of version" : name} ${said}`;
    })
    .join(", ");
}
