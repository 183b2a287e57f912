/** A new model: a name, the images that it sees, and what it is built on, in words. */

import { html, useState } from "../vendor/preact.js";
import { Section, Title, Trouble } from "../parts/view.js";
import { all, json } from "../service.js";
import { useLoaded } from "../state.js";
import { go, to } from "../routes.js";

const SIZES = [
  ["28", "28 × 28: digits, symbols"],
  ["32", "32 × 32: small pictures"],
  ["64", "64 × 64"],
  ["128", "128 × 128"],
  ["224", "224 × 224: photographs"],
  ["own", "Another size"],
];
const LAYOUTS = [
  ["cnn", "Small convolutions (cnn)", "Learns from nothing; for small pictures of simple things."],
  ["resnet18", "Residual network (resnet18)", "Larger and slower; for more pictures of more kinds."],
  ["mlp", "Plain layers (mlp)", "For very small pictures, or none at all such as spectra."],
];

export function Create() {
  const backbones = useLoaded((signal) => all("v1/backbones", "backbones", { signal }), []);
  const [name, setName] = useState("");
  const [over, setOver] = useState("cnn");
  const [colour, setColour] = useState("3");
  const [side, setSide] = useState("28");
  const [height, setHeight] = useState("96");
  const [width, setWidth] = useState("96");
  const [convert, setConvert] = useState(true);
  const [manual, setManual] = useState(false);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const network = over.startsWith("network:") ? over.slice(8) : null;

  const definition = () => {
    const publish = manual ? { publish: "manual" } : {};
    if (network !== null) return { name, ...publish, commons: { kind: "pretrained", backbone: network } };
    const [high, wide] = side === "own" ? [Number(height), Number(width)] : [Number(side), Number(side)];
    const input = {
      channels: Number(colour),
      height: high,
      width: wide,
      ...(colour === "1" && convert ? { convert: true } : {}),
    };
    return { name, ...publish, backbone: over, input };
  };
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await json("v1/models", { method: "POST", json: definition() });
      go("models", name, "teach");
    } catch (error) {
      setProblem(error);
      setBusy(false);
    }
  };
  const text = (/** @type {(given: string) => void} */ set) => (/** @type {any} */ event) => set(event.target.value);
  return html`
    <${Title} eyebrow=${html`<a href=${to("models")}>Models</a>`} name="New model" />
    <form onSubmit=${submit} class="narrow">
      <${Section} title="Name">
        <label class="field"><span class="hidden">Name</span>
          <input name="name" required pattern="[a-z0-9][a-z0-9_\\-]{0,62}" maxlength="63" autocomplete="off"
            title="Small letters, digits, - and _, without spaces; a letter or a digit first"
            placeholder="parts" value=${name} onInput=${text(setName)} />
          <small>Small letters, digits, - and _, without spaces. It stays as long as the model.</small>
        </label>
      <//>
      <${Section} title="What it is built on" note="It cannot be changed later.">
        <div class="choices" role="radiogroup" aria-label="What it is built on">
          ${(backbones.data ?? []).map(
            (/** @type {any} */ one) => html`
            <label class="choice"><input type="radio" name="over" value=${`network:${one.name}`}
              checked=${network === one.name} onChange=${text(setOver)} />
              <span><strong>${one.name}</strong>
                <small>A network of yours, ${one.architecture}. Best for photographs.</small></span></label>
          `,
          )}
          ${LAYOUTS.map(
            ([value, label, why]) => html`
            <label class="choice"><input type="radio" name="over" value=${value} checked=${over === value}
              onChange=${text(setOver)} />
              <span><strong>${label}</strong><small>${why}</small></span></label>
          `,
          )}
        </div>
        ${backbones.data?.length === 0 && html`<p class="note">For photographs, <a
          href=${to("backbones")}>bring a pretrained network</a> first: it does far better than one that begins from nothing.</p>`}
      <//>
      ${
        network === null &&
        html`
        <${Section} title="Images"
          note="Every image is brought to this size and these colours before the model sees it.">
          <div class="fields">
            <label class="field"><span>Colours</span>
              <select name="channels" value=${colour} onChange=${text(setColour)}><option value="3">Colour</option>
                <option value="1">Grey</option></select></label>
            <label class="field"><span>Size in pixels</span>
              <select name="size" value=${side} onChange=${text(setSide)}>
                ${SIZES.map(([value, label]) => html`<option value=${value}>${label}</option>`)}</select></label>
            ${
              side === "own" &&
              html`
              <label class="field"><span>Height</span>
                <input type="number" min="8" max="1024" required value=${height} onInput=${text(setHeight)} /></label>
              <label class="field"><span>Width</span>
                <input type="number" min="8" max="1024" required value=${width} onInput=${text(setWidth)} /></label>
            `
            }
          </div>
          ${colour === "1" && html`<label class="check">
            <input type="checkbox" checked=${convert}
              onChange=${(/** @type {any} */ event) => setConvert(event.target.checked)} />
                <span>Turn coloured images grey (else they are refused)</span></label>`}
        <//>
      `
      }
      <${Section} title="Who decides">
        <label class="check">
          <input type="checkbox" name="manual" checked=${manual}
            onChange=${(/** @type {any} */ event) => setManual(event.target.checked)} />
          <span>What is learned waits until somebody activates it<small> This can be changed later.</small></span></label>
      <//>
      <${Trouble} problem=${problem} />
      <div class="acts"><a class="button" href=${to("models")}>Leave it</a>
        <button type="submit" class="primary" disabled=${busy}>${busy ? "Making it…" : "Make the model"}</button></div>
    </form>
  `;
}
