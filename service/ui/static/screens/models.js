/** The models: version, tasks, novelty and problems of each. */

import { html, useCallback, useState } from "../vendor/preact.js";
import { May, useMay } from "../parts/permission.js";
import { Empty, Loaded, Mark, Moment, Title } from "../parts/view.js";
import { all, Problem } from "../service.js";
import { announce, useLoaded, useRepeat } from "../state.js";
import { go, to } from "../routes.js";
import { counted, number } from "../words.js";

/** @typedef {{ name: string, version: number, tasks: number, created_at: string, method?: string, backbone?: string, novelty?: string | null, samples?: number, problems?: { code: string, detail: string }[] }} Summary */

const LOOK_AGAIN = 5000;

/** Kinds of marks by the monitor's state. @type {Record<string, string>} */
export const NOVELTY = { known: "good", drift: "warn", "new task suspected": "bad" };

/** All models; of a service that has no summary, what its list says. @param {AbortSignal} signal @returns {Promise<Summary[]>} */
async function summaries(signal) {
  try {
    return await all("v1/summary", "models", { signal });
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 404) throw error;
    return all("v1/models", "models", { signal });
  }
}

export function Models() {
  const models = useLoaded(summaries, []);
  const [sought, setSought] = useState("");
  useRepeat(useCallback(models.reload, []), LOOK_AGAIN);
  return html`
    <${Title} name="Models">
      <${May} scope="admin"><a class="button primary" href=${to("new")}>New model</a><//>
    <//>
    <${Loaded} of=${models}>
      ${(/** @type {Summary[]} */ found) =>
        found.length === 0
          ? html`<${First} />`
          : html`
        ${
          found.length > 8 &&
          html`
          <label class="field search"><span class="hidden">Find a model</span>
            <input type="search" placeholder="Find a model" value=${sought}
              onInput=${(/** @type {any} */ event) => setSought(event.target.value)}
              onChange=${() => announce(counted(matching(found, sought).length, "model"))} />
          </label>
        `
        }
        <${Table} models=${matching(found, sought)} />
      `}
    <//>
  `;
}

/** @param {Summary[]} models @param {string} sought */
function matching(models, sought) {
  const text = sought.trim().toLowerCase();
  return text ? models.filter((model) => model.name.includes(text)) : models;
}

function First() {
  return html`
    <${Empty} title="No model yet">
      <p>A model begins empty, and learns one task after another. What a task has learned never changes again.</p>
      <ol class="steps">
        <li><strong>Make a model</strong> for images of one size.</li>
        <li><strong>Teach it a task</strong>: drop a folder in which each class has a folder of images.</li>
        <li><strong>Try it</strong> with images that it has not seen.</li>
      </ol>
      ${
        useMay("admin")
          ? html`<p><button type="button" class="primary" onClick=${() => go("new")}>Make a model</button></p>`
          : html`<p>Whoever has a key with the scope <code>admin</code> makes one.</p>`
      }
    <//>
  `;
}

/** @param {{ models: any[] }} given */
function Table({ models }) {
  return html`
    <div class="card flush">
      <table class="wide models">
        <caption class="hidden">Models</caption>
        <thead><tr><th scope="col">Model</th><th scope="col" class="figure">Version</th>
          <th scope="col" class="figure">Tasks</th><th scope="col">Incoming images</th><th scope="col">State</th>
            <th scope="col">Made</th></tr></thead>
        <tbody>
          ${models.map(
            (/** @type {Summary} */ model) => html`
            <tr key=${model.name}>
              <th scope="row"><a href=${to("models", model.name)}>${model.name}</a>${model.method && html`<small>
                ${model.method}, ${model.backbone}</small>`}</th>
              <td class="figure" data-name="Version">${number(model.version)}</td>
              <td class="figure" data-name="Tasks">${number(model.tasks)}</td>
              <td data-name="Incoming images">
                ${model.novelty && model.tasks > 0 && model.samples !== 0 ? html`<${Mark} kind=${NOVELTY[model.novelty]}>${model.novelty}
                  <//>` : html`<span class="note">${model.tasks > 0 ? "none yet" : "–"}</span>`}</td>
              <td data-name="State">${
                model.problems?.length
                  ? html`<${Mark} kind="bad">${model.problems[0].code.replaceAll("_", " ")}<//>`
                  : model.tasks === 0
                    ? html`<${Mark}>nothing learned<//>`
                    : html`<${Mark} kind="good">answers<//>`
              }</td>
              <td data-name="Made"><${Moment} at=${model.created_at} /></td>
            </tr>
          `,
          )}
        </tbody>
      </table>
    </div>
  `;
}
