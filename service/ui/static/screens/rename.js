/** Other names for a task and its classes, under which they are shown from then on. */

import { html, useState } from "../vendor/preact.js";
import { Dialog } from "../parts/dialog.js";
import { Trouble } from "../parts/view.js";
import { json, path } from "../service.js";
import { announce } from "../state.js";

/** @typedef {import("../service.js").Json} Json */

/** @param {{ model: string, task: Json, waits: boolean, done: (version: Json) => void }} given */
export function Rename({ model, task, waits, done }) {
  const [open, setOpen] = useState(false);
  return html`
    <button type="button" onClick=${() => setOpen(true)}>Rename</button>
    ${
      open &&
      html`<${Names} model=${model} task=${task} waits=${waits} close=${() => setOpen(false)}
        done=${(/** @type {Json} */ version) => {
          setOpen(false);
          done(version);
        }} />`
    }
  `;
}

/** @param {{ model: string, task: any, waits: boolean, close: () => void, done: (version: Json) => void }} given */
function Names({ model, task, waits, close, done }) {
  const [name, setName] = useState(task.name);
  const [labels, setLabels] = useState(/** @type {Record<string, string>} */ ({}));
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const changed = Object.fromEntries(Object.entries(labels).filter(([before, after]) => after.trim() !== before));
  const renames = name.trim() !== task.name;
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      const asked = { ...(renames ? { name: name.trim() } : {}), labels: trimmed(changed) };
      const where = `v1/models/${path(model)}/tasks/${path(task.name)}`;
      const version = await json(where, { method: "PATCH", json: asked });
      announce(`Version ${version.version} shows the new names`);
      done(version);
    } catch (error) {
      setProblem(error);
      setBusy(false);
    }
  };
  return html`
    <${Dialog} title=${`Rename ${task.name}`} close=${close}>
      <form onSubmit=${submit}>
        <p class="note">A new version shows the new names. Nothing is learned again, and answers stay the same bytes. Programs may go on asking by the old names.
          ${waits && " Like all versions of this model, it waits until somebody activates it."}</p>
        <label class="field"><span>Task</span><input name="task" required maxlength="100" autocomplete="off" value=${name}
          onInput=${(/** @type {any} */ event) => setName(event.target.value)} /></label>
        <fieldset class="labels"><legend>Labels</legend>
          ${task.classes.map(
            (/** @type {string} */ label) => html`
            <label class="field"><span>${label}</span><input required maxlength="255" autocomplete="off"
              value=${labels[label] ?? label}
              onInput=${(/** @type {any} */ event) => setLabels({ ...labels, [label]: event.target.value })} /></label>
          `,
          )}
        </fieldset>
        <${Trouble} problem=${problem} />
        <div class="acts">
          <button type="button" class="quiet" onClick=${close}>Leave it</button>
          <button type="submit" class="primary" disabled=${busy || !(renames || Object.keys(changed).length > 0)}>
            ${busy ? "One moment…" : "Rename"}</button>
        </div>
      </form>
    <//>
  `;
}

/** @param {Record<string, string>} labels */
function trimmed(labels) {
  return Object.fromEntries(Object.entries(labels).map(([before, after]) => [before, after.trim()]));
}
