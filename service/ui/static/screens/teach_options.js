/** How a task is learned, in words: few choices, each with what it is good for. */

import { html } from "../vendor/preact.js";

/** @typedef {{ effort: string, mirror: boolean, accuracy: string, recall: string, recognised: string, minutes: string }} Chosen */

/** What is learned by where nothing is said. @type {Chosen} */
export const PLAIN = { effort: "usual", mirror: false, accuracy: "", recall: "", recognised: "", minutes: "" };

/** How long it learns: what it is called, what it means, and the options for it. @type {[string, string, string, Record<string, number>][]} */
const EFFORTS = [
  ["quick", "Quick", "Two passes over the images: to see whether it works at all.", { epochs: 2, rounds: 1 }],
  ["usual", "Usual", "Five passes: right for most tasks.", {}],
  ["thorough", "Thorough", "Up to twenty passes, ended when it gets no better.", { epochs: 20, patience: 4 }],
];

/** The service's options for what was chosen; what is left out is its own default. @param {Chosen} chosen */
export function optionsOf(chosen) {
  /** @type {Record<string, number | string>} */
  const options = { ...EFFORTS.find(([value]) => value === chosen.effort)?.[3] };
  if (chosen.mirror) options.augment = "shift+flip";
  if (chosen.accuracy) options.min_accuracy = Number(chosen.accuracy) / 100;
  if (chosen.recall) options.min_recall = Number(chosen.recall) / 100;
  if (chosen.recognised) options.min_recognised = Number(chosen.recognised) / 100;
  if (chosen.minutes) options.max_seconds = Number(chosen.minutes) * 60;
  return options;
}

/** Held-out images of a class that its recall needs for a limit, and the share of an upload that is held out. */
export const MEASURABLE = 20;
const HELD_OUT = 0.1;

/** About how many images are held out of the class of which there are fewest. @param {import("../data/collection.js").Collection | null} collection */
export function leastHeldOut(collection) {
  const counts = (collection?.classes ?? []).map(
    (one) => one.validation.length || Math.max(Math.round(one.images.length * HELD_OUT), 1),
  );
  return counts.length > 0 ? Math.min(...counts) : null;
}

/** @param {{ options: Chosen, set: (chosen: Chosen) => void, collection: import("../data/collection.js").Collection | null }} given */
export function TeachOptions({ options, set, collection }) {
  const least = leastHeldOut(collection);
  const short = options.recall && least !== null && least < MEASURABLE;
  const change = (/** @type {keyof Chosen} */ field) => (/** @type {any} */ event) =>
    set({ ...options, [field]: event.target.type === "checkbox" ? event.target.checked : event.target.value });
  const limit = (
    /** @type {keyof Chosen} */ field,
    /** @type {string} */ label,
    /** @type {string} */ unit,
    /** @type {string} */ why,
    /** @type {number} */ most,
  ) => html`
    <label class="field"><span>${label}</span>
      <span class="unit"><input type="number" min="1" max=${most} step="any" placeholder="no limit"
        value=${options[field]} onInput=${change(field)} /> ${unit}</span>
      <small>${why}</small></label>
  `;
  return html`
    <fieldset class="choices three"><legend>How long it learns</legend>
      ${EFFORTS.map(
        ([value, label, why]) => html`
        <label class="choice"><input type="radio" name="effort" value=${value} checked=${options.effort === value}
          onChange=${change("effort")} />
          <span><strong>${label}</strong><small>${why}</small></span></label>
      `,
      )}
    </fieldset>
    <label class="check"><input type="checkbox" checked=${options.mirror} onChange=${change("mirror")} />
      <span>A mirror image means the same (not so of letters and digits)</span></label>
    <details>
      <summary>Publish it only if…</summary>
      <p class="note">Else the job fails, and nothing is published.</p>
      <div class="fields">
        ${limit("accuracy", "Accuracy is at least", "%", "On images held out, the task given.", 100)}
        ${limit("recall", "Every class is found at least", "%", "Needs 20 held-out images of each class: a tenth is held out, of 200 images 20, or what lies in val/.", 100)}
        ${limit("recognised", "Images are recognised at least", "%", "Share of its images that are given to this task among all.", 100)}
        ${limit("minutes", "It takes at most", "minutes", "Time that learning takes.", 100000)}
      </div>
      ${short && html`<p class="bad" role="status">Of these images only about ${least} of a class are held out, so it cannot be told whether every class is found: the job would fail.</p>`}
    </details>
  `;
}
