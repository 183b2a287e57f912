/** Try it: images are dropped, pasted or photographed, and answered; each answer can be explained by a heatmap. */

import { html, useCallback, useEffect, useRef, useState } from "../vendor/preact.js";
import { DropZone } from "../parts/drop.js";
import { May } from "../parts/permission.js";
import { Empty, Mark, Meter, Trouble } from "../parts/view.js";
import { ask, json, path } from "../service.js";
import { announce, useLoaded } from "../state.js";
import { to } from "../routes.js";
import { counted, percent } from "../words.js";

/** @typedef {import("../service.js").Json} Json */
/** @typedef {{ id: number, name: string, file: Blob, url: string, answer: Json | null, problem: any }} Asked */

const TOP = 5;
const TOGETHER = 8;
const MOST_SHOWN = 60;
/** So many images are explained without being asked. */
const EXPLAINED = 4;

let made = 0;

/** @param {{ model: Json, wanted?: string }} given */
export function Try({ model, wanted }) {
  const [images, setImages] = useState(/** @type {Asked[]} */ ([]));
  const [task, setTask] = useState("");
  /** @type {number[]} */
  const candidates = model.candidates ?? [];
  const newest = model.tasks.length === 0 ? String(candidates[candidates.length - 1] ?? "") : "";
  const [version, setVersion] = useState(candidates.includes(Number(wanted)) ? String(wanted) : newest);
  const waiting = useLoaded(
    async (signal) => (version ? json(`v1/models/${path(model.name)}/versions/${version}`, { signal }) : null),
    [model.name, version],
  );
  /** @type {Json[]} */
  const tasks = version ? (waiting.data?.tasks ?? []) : model.tasks;
  const shown = useRef(images);
  shown.current = images;
  useEffect(() => () => shown.current.forEach((one) => URL.revokeObjectURL(one.url)), []);

  const answer = async (/** @type {Asked[]} */ asked) => {
    for (let at = 0; at < asked.length; at += TOGETHER) {
      const part = asked.slice(at, at + TOGETHER);
      const found = await predict(model.name, part, task, version);
      setImages((before) => before.map((one) => found.get(one.id) ?? one));
    }
    announce(`${counted(asked.length, "image")} answered`);
  };
  const take = useCallback(
    (/** @type {import("../data/dropped.js").GivenFile[]} */ files) => {
      const asked = files.slice(0, MOST_SHOWN).map(({ path: name, file }) => ({
        id: (made += 1),
        name,
        file,
        url: URL.createObjectURL(file),
        answer: null,
        problem: null,
      }));
      setImages((before) => [...asked, ...before].slice(0, MOST_SHOWN));
      answer(asked);
    },
    [model.name, task, version],
  );
  if (model.tasks.length === 0 && candidates.length === 0) {
    return html`
      <${Empty} title="It knows nothing yet">
        <p>Once ${model.name} has learned a task, it answers images here.</p>
        <${May} scope="learn"><p><a class="button primary"
          href=${to("models", model.name, "teach")}>Teach a task</a></p><//>
      <//>
    `;
  }
  const others = (/** @type {(value: string) => void} */ set) => (/** @type {any} */ event) => {
    set(event.target.value);
    if (set === setVersion) setTask("");
    setImages((before) => before.map((one) => ({ ...one, answer: null, problem: null })));
  };
  return html`
    <${DropZone} take=${take} title="Drop images here, or paste one" accept="image/*" camera=${true} paste=${true}>
      They are answered by version ${version || model.version}, and kept nowhere.
    <//>
    <div class="fields">
      ${
        candidates.length > 0 &&
        html`<label class="field"><span>Which version answers</span>
        <select name="version" value=${version} onChange=${others(setVersion)}>
          ${model.tasks.length > 0 && html`<option value="">${model.version}, which everybody is answered by</option>`}
          ${candidates.map((one) => html`<option value=${String(one)}>${one}, which waits to be activated</option>`)}
        </select>
      </label>`
      }
      <label class="field"><span>Which task an image belongs to</span>
        <select name="task" value=${task} onChange=${others(setTask)}>
          <option value="">Let the model tell</option>
          ${tasks.map((/** @type {Json} */ one) => html`<option value=${one.name}>${one.name}</option>`)}
        </select>
      </label>
      ${
        images.some((one) => one.answer === null && one.problem === null) &&
        html`<button type="button"
        onClick=${() => answer(images)}>Ask again</button>`
      }
      ${images.length > 0 && html`<button type="button" class="quiet" onClick=${() => setImages([])}>Clear</button>`}
    </div>
    <div class="answers">
      ${images.map(
        (one, at) => html`<${Answer} key=${one.id} model=${model} asked=${one}
        version=${version} tasks=${tasks} explained=${at < EXPLAINED} />`,
      )}
    </div>
  `;
}

/**
 * The images with their answers by id.
 *
 * @param {string} model @param {Asked[]} asked @param {string} task @param {string} version
 */
async function predict(model, asked, task, version) {
  /** @type {Map<number, Asked>} */
  const found = new Map();
  const form = new FormData();
  for (const one of asked) form.append("image", one.file, "image");
  try {
    const { predictions } = await json(`v1/models/${path(model)}/predict`, {
      method: "POST",
      body: form,
      query: { top_k: TOP, task, version },
    });
    asked.forEach((one, at) => {
      const { error } = predictions[at];
      found.set(one.id, {
        ...one,
        answer: error ? null : predictions[at],
        problem: error ? { ...error, message: error.detail } : null,
      });
    });
  } catch (problem) {
    for (const one of asked) found.set(one.id, { ...one, answer: null, problem });
  }
  return found;
}

/** @param {{ model: any, asked: Asked, version: string, tasks: Json[], explained: boolean }} given */
function Answer({ model, asked, version, tasks, explained }) {
  const [wanted, setWanted] = useState(/** @type {{ task: string, label: string } | null} */ (null));
  const { answer } = asked;
  const target = wanted ?? (answer && { task: answer.task, label: answer.label });
  return html`
    <article class="card answer" aria-label=${`Answer for ${asked.name}`}>
      ${
        answer
          ? html`<${Picture} model=${model.name} asked=${asked} version=${version} target=${target}
            auto=${explained || wanted !== null} />`
          : html`<div class="pictures"><figure><img src=${asked.url} alt=${asked.name} /></figure></div>`
      }
      <div class="answer-text">
        <p class="eyebrow file">${asked.name}</p>
        <${Trouble} problem=${asked.problem} />
        ${!answer && !asked.problem && html`<p class="loading" role="status">Asking…</p>`}
        ${
          answer &&
          html`
          <h2>${answer.label}</h2>
          <p class="marks">
            <${Known} known=${answer.known} novelty=${answer.novelty} />
            <span>task ${
              version
                ? answer.task
                : html`<a href=${to("models", model.name, "tasks", answer.task)}>${answer.task}</a>`
            }, ${percent(answer.task_probability)}</span>
          </p>
          <ul class="shares">
            ${answer.top.map(
              (/** @type {Json} */ one) => html`
              <li class="share">
                <span class="share-name">${one.label}${one.task !== answer.task && html` <small>${one.task}</small>`}
                  </span>
                <${Meter} value=${one.probability} />
                <span class="share-value">${percent(one.probability)}</span>
                <span class="share-tag" title=${EVIDENCE[one.evidence]}>
                  ${one.evidence === "head" ? "network" : "commons"}</span>
              </li>
            `,
            )}
          </ul>
          <p class="note">
            ${answer.ran.length > 0 ? html`Engrams that ran: ${answer.ran.join(", ")}${answer.top.some((/** @type {Json} */ one) => one.evidence === "ridge") ? "; of the others the commons alone tell" : ""}.` : "All engrams ran."} Novelty ${answer.novelty.toFixed(2)}.
            ${answer.calibrated === false && " These probabilities are not calibrated."}</p>
          <label class="field line"><span>Heatmap for</span>
            <select value=${`${target?.task}\u0000${target?.label}`} onChange=${(/** @type {any} */ event) => {
              const [task, label] = event.target.value.split("\u0000");
              setWanted({ task, label });
            }}>
              ${tasks.map(
                (/** @type {Json} */ task) => html`<optgroup label=${task.name}>
                ${task.classes.map(
                  (/** @type {string} */ label) => html`<option value=${`${task.name}\u0000${label}`}>
                  ${label}</option>`,
                )}</optgroup>`,
              )}
            </select>
          </label>
        `
        }
      </div>
    </article>
  `;
}

/** @type {Record<string, string>} */
const EVIDENCE = {
  head: "The network of its task said so",
  ridge: "Told by the commons alone; the network of its task was not run",
};

/** @param {{ known: boolean | null, novelty: number }} given */
function Known({ known, novelty }) {
  if (known === null) return html`<${Mark}>cannot tell whether known<//>`;
  return known
    ? html`<${Mark} kind="good">known<//>`
    : html`<${Mark} kind="bad">unlike what it has learned (${novelty.toFixed(2)})<//>`;
}

/** Which task and label it is of, and what there is. @typedef {{ of: string, url: string | null, problem: any, loading: boolean }} Heatmap */

const NO_HEATMAP = /** @type {Heatmap} */ ({ of: "", url: null, problem: null, loading: false });

/**
 * The picture, and beside it what spoke for a class and against it.
 *
 * @param {{ model: string, asked: Asked, version: string, target: { task: string, label: string } | null, auto: boolean }} given
 */
function Picture({ model, asked, version, target, auto }) {
  const [found, setFound] = useState(NO_HEATMAP);
  const [wanted, setWanted] = useState(false);
  const at = target ? `${target.task}\u0000${target.label}` : "";
  useEffect(() => {
    if (!target || !(auto || wanted)) return undefined;
    const over = new AbortController();
    let url = "";
    setFound({ of: at, url: null, problem: null, loading: true });
    const call = {
      method: "POST",
      body: asked.file,
      headers: { "Content-Type": imageType(asked.file) },
      query: { target: target.label, task: target.task, version },
      signal: over.signal,
    };
    ask(`v1/models/${path(model)}/explain`, call)
      .then((response) => response.blob())
      .then((blob) => {
        if (over.signal.aborted) return;
        url = URL.createObjectURL(blob);
        setFound({ of: at, url, problem: null, loading: false });
      })
      .catch((problem) => over.signal.aborted || setFound({ of: at, url: null, problem, loading: false }));
    return () => {
      over.abort();
      if (url) URL.revokeObjectURL(url);
    };
  }, [model, asked.id, version, at, auto, wanted]);
  // That of the label before is not shown under this one's name, not even for a moment.
  const heatmap = found.of === at ? found : NO_HEATMAP;
  return html`
    <div class="pictures">
      <figure><img src=${asked.url} alt=${asked.name} /><figcaption>the image</figcaption></figure>
      <figure class="heatmap">
        ${
          heatmap.url
            ? html`<img src=${heatmap.url} alt=${`Heatmap: what spoke for ${target?.label}, and against it`} />`
            : html`<div class="blank">${
                heatmap.problem
                  ? html`<small>
                    ${heatmap.problem.code === "no_network" ? "A task of one class has no heatmap." : heatmap.problem.message}
                      </small>`
                  : heatmap.loading
                    ? html`<small role="status">Explaining…</small>`
                    : html`<button type="button" onClick=${() => setWanted(true)}>Why?</button>`
              }</div>`
        }
        <figcaption>${
          target
            ? html`<span class="for">for ${target.label}
          </span> <span class="against">against</span>`
            : ""
        }</figcaption>
      </figure>
    </div>
  `;
}

/** Formats are told by their first bytes; a type that says something else would be refused. @param {Blob} file */
function imageType(file) {
  return file.type.startsWith("image/") ? file.type : "image/*";
}
