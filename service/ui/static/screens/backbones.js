/** Backbones: networks that users bring, which models read. */

import { html, useState } from "../vendor/preact.js";
import { Asking } from "../parts/dialog.js";
import { May } from "../parts/permission.js";
import { Digest, Empty, Facts, Loaded, Meter, Moment, Section, Title, Trouble } from "../parts/view.js";
import { send } from "../data/sending.js";
import { all, ask, path } from "../service.js";
import { announce, useLoaded } from "../state.js";
import { number, percent, size } from "../words.js";

/** @typedef {import("../service.js").Json} Json */

export function Backbones() {
  const backbones = useLoaded((signal) => all("v1/backbones", "backbones", { signal }), []);
  const [adding, setAdding] = useState(false);
  const done = () => {
    setAdding(false);
    announce("The network is stored");
    backbones.reload();
  };
  return html`
    <${Title} name="Backbones">${!adding && html`<${May} scope="admin"><button type="button" class="primary"
      onClick=${() => setAdding(true)}>Bring a network</button><//>`}<//>
    ${adding && html`<${Add} done=${done} close=${() => setAdding(false)} />`}
    <${Loaded} of=${backbones}>
      ${(/** @type {Json[]} */ found) =>
        found.length === 0 && !adding
          ? html`<${Empty} title="No network yet">
            <p>A pretrained network, brought as a safetensors file, is computed once for every image and never changes; tasks are small parts over it. For photographs it does far better than a model that begins from nothing.</p>
            <p class="note">Of a <code>.pth</code> file, <code>engram backbones convert</code> makes a safetensors file on your machine.</p>
              <//>`
          : found.map((one) => html`<${Backbone} key=${one.name} of=${one} gone=${backbones.reload} />`)}
    <//>
  `;
}

/** @param {{ of: any, gone: () => void }} given */
function Backbone({ of, gone }) {
  const act = () => ask(`v1/backbones/${path(of.name)}`, { method: "DELETE" });
  return html`
    <${Section} title=${of.name} acts=${html`<${May} scope="admin"><${Asking} label="Delete" kind="danger"
      title=${`Delete ${of.name}?`} act=${act} done=${gone}
      question="Only a network that no model has can be deleted. Its name is free then." /><//>`}>
      <${Facts} of=${[
        ["Architecture", of.architecture],
        ["Parameters", number(of.parameters)],
        ["Size", size(of.bytes)],
        ["Licence", of.licence ?? "not named"],
        ["Weights", html`<${Digest} of=${of.weights} />`],
        ["Stored", html`<${Moment} at=${of.created_at} />`],
      ]} />
    <//>
  `;
}

/** @param {{ done: () => void, close: () => void }} given */
function Add({ done, close }) {
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const [share, setShare] = useState(/** @type {number | null} */ (null));
  const [over] = useState(() => new AbortController());
  const submit = async (/** @type {any} */ event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    const form = new FormData();
    for (const name of ["name", "architecture", "licence", "weights"]) {
      const value = given.get(name);
      if (value) form.append(name, value);
    }
    const classes = String(given.get("classes") ?? "")
      .split("\n")
      .map((one) => one.trim())
      .filter(Boolean);
    if (classes.length > 0) form.append("classes", JSON.stringify(classes));
    setProblem(null);
    setShare(0);
    try {
      await send("v1/backbones", form, setShare, over.signal);
      done();
    } catch (error) {
      setProblem(error);
      setShare(null);
    }
  };
  return html`
    <${Section} title="Bring a network"
      note="Architecture and weights are checked against each other before anything is stored. No pickle is read.">
      <form onSubmit=${submit}>
        <div class="fields">
          <label class="field"><span>Name</span><input name="name" required autocomplete="off" placeholder="lite0" />
            </label>
          <label class="field"><span>Architecture</span>
            <input name="architecture" required autocomplete="off" placeholder="torchvision/resnet18" />
              <small>As its library calls it.</small></label>
          <label class="field"><span>Licence of the weights</span>
            <input name="licence" autocomplete="off" placeholder="apache-2.0" /></label>
          <label class="field"><span>Weights</span><input type="file" name="weights" accept=".safetensors" required />
            <small>A safetensors file.</small></label>
        </div>
        <details><summary>Names of its classes</summary>
          <label class="field"><span>One on a line; needed only to adopt its own classifier as a first task</span>
            <textarea name="classes" rows="5"></textarea></label></details>
        <${Trouble} problem=${problem} />
        ${
          share === null
            ? html`<div class="acts"><button type="button" onClick=${close}>Leave it</button>
              <button type="submit" class="primary">Store it</button></div>`
            : html`<p class="sending" role="status"><strong>${share < 1 ? "Sending" : "Inspecting"}
              </strong> <${Meter} value=${share} /> ${percent(share, 0)}</p>`
        }
      </form>
    <//>
  `;
}
