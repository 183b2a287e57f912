/** One model: its frame with the places in it, and its overview. */

import { html, useCallback, useEffect, useRef, useState } from "../vendor/preact.js";
import { Asking } from "../parts/dialog.js";
import { ownedUnits, readUnits, Stack } from "../parts/stack.js";
import { May, Needs, useMay } from "../parts/permission.js";
import { Empty, Facts, Loaded, Mark, Section, ShareRow, Title, Trouble } from "../parts/view.js";
import { ask, json, path } from "../service.js";
import { useLoaded, useValue } from "../state.js";
import { offers } from "../offers.js";
import { go, to } from "../routes.js";
import { counted, number, percent, shape } from "../words.js";
import { Evaluate } from "./evaluate.js";
import { Novelty } from "./novelty.js";
import { Rename } from "./rename.js";
import { Teach } from "./teach.js";
import { Try } from "./try.js";
import { CertificateScreen, Versions } from "./versions.js";

/** @typedef {import("../service.js").Json} Json */

/** What the places are called. @type {Record<string, string>} */
const NAMES = {
  "": "Overview",
  try: "Try it",
  teach: "Teach",
  versions: "Versions",
  evaluate: "Evaluate",
  novelty: "Novelty",
};
const EVALUATE = "/v1/models/{model}/evaluate";
const RENAME = "PATCH /v1/models/{model}/tasks/{task}";
/** Tasks whose reports are asked for at once. */
const MOST_REPORTS = 32;
const SIDE_BY_SIDE = 6;

/** @param {{ model: string, parts: string[] }} given */
export function ModelScreens({ model, parts }) {
  const loaded = useLoaded((signal) => json(`v1/models/${path(model)}`, { signal }), [model]);
  const has = useValue(offers);
  const teaches = useMay("learn");
  const [place] = parts;
  const hidden = new Set([...(teaches ? [] : ["teach", "evaluate"]), ...(has.has(EVALUATE) ? [] : ["evaluate"])]);
  const places = Object.entries(NAMES).filter(([name]) => !hidden.has(name));
  const here = place === "tasks" ? "" : (place ?? "");
  const named = Object.hasOwn(NAMES, here) ? NAMES[here] : "Not found";
  const tabs = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    // On a narrow screen the tab of what is shown may lie outside of it.
    const tab = /** @type {HTMLElement | null | undefined} */ (tabs.current?.querySelector("[aria-current]"));
    if (tabs.current && tab) tabs.current.scrollLeft = tab.offsetLeft - (tabs.current.clientWidth - tab.offsetWidth) / 2;
  }, [here, places.length]);
  if (loaded.data === null && loaded.error?.code === "unknown_model") {
    return html`
      <${Title} eyebrow=${html`<a href=${to("models")}>Models</a>`} name="Not found" />
      <${Empty} title=${`There is no model ${model}`}>
        <p>It may have been deleted.</p>
        <p><a class="button" href=${to("models")}>To the models</a></p>
      <//>
    `;
  }
  return html`
    <${Title} eyebrow=${html`<a href=${to("models")}>Models</a>`} name=${here ? `${model} · ${named}` : model} />
    <nav ref=${tabs} class="tabs" aria-label=${`Model ${model}`}>
      ${places.map(([name, label]) => html`<a href=${to("models", model, ...(name ? [name] : []))}
        aria-current=${here === name ? "page" : undefined}>${label}</a>`)}
    </nav>
    <${Loaded} of=${loaded}>
      ${(/** @type {Json} */ found) => html`
        ${found.candidates?.length > 0 && place !== "versions" && html`<p class="notice"><span>
          ${counted(found.candidates.length, "version waits", "versions wait")} to be activated: ${found.candidates.join(", ")}.</span>
            <a class="button"
              href=${to("models", model, "versions")}>Look at ${found.candidates.length === 1 ? "it" : "them"}</a></p>`}
        ${found.problems.map((/** @type {Json} */ one) => html`<${Trouble}
          problem=${{ code: one.code, message: one.detail }} />`)}
        ${show(found, parts, loaded.reload)}
      `}
    <//>
  `;
}

/** @param {Json} model @param {string[]} parts @param {() => void} reload */
function show(model, [place, inside, ...more], reload) {
  if (more.length === 0 && inside !== undefined) {
    if (place === "versions" && /^\d{1,8}$/.test(inside))
      return html`<${CertificateScreen} model=${model} version=${Number(inside)} />`;
    if (place === "try" && /^\d{1,8}$/.test(inside)) return html`<${Try} key=${inside} model=${model} wanted=${inside} />`;
    if (place === "tasks" && model.tasks.some((/** @type {Json} */ task) => task.name === inside))
      return html`<${Overview} model=${model} chosen=${inside} reload=${reload} />`;
  }
  if (inside === undefined) {
    if (place === undefined || place === "tasks")
      return html`<${Overview} model=${model} chosen=${null} reload=${reload} />`;
    if (place === "try") return html`<${Try} model=${model} />`;
    if (place === "teach") return html`<${Needs} scope="learn" what="Teaching"><${Teach} model=${model} /><//>`;
    if (place === "versions") return html`<${Versions} model=${model} reload=${reload} />`;
    if (place === "evaluate")
      return html`<${Needs} scope="learn" what="Evaluating"><${Evaluate} model=${model} /><//>`;
    if (place === "novelty") return html`<${Novelty} model=${model} />`;
  }
  return html`
    <${Empty} title=${place === "tasks" ? `There is no task ${inside}` : "There is no such screen"}>
      <p><a class="button" href=${to("models", model.name)}>To the overview of ${model.name}</a></p>
    <//>
  `;
}

/** The learning reports of tasks by name, a few at a time. @param {string} model @param {string[]} names */
function useReports(model, names) {
  const [reports, setReports] = useState(/** @type {Record<string, Json>} */ ({}));
  const wanted = names.join("/");
  useEffect(() => {
    const over = new AbortController();
    const waiting = [...names];
    const fetchNext = async () => {
      for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
        const task = name;
        const found = await json(`v1/models/${path(model)}/tasks/${path(task)}`, { signal: over.signal });
        setReports((before) => ({ ...before, [task]: found }));
      }
    };
    for (let turn = 0; turn < SIDE_BY_SIDE; turn += 1) fetchNext().catch(() => undefined);
    return () => over.abort();
  }, [model, wanted]);
  return reports;
}

/** @param {{ model: any, chosen: string | null, reload: () => void }} given */
function Overview({ model, chosen, reload }) {
  const newest = model.tasks.slice(-MOST_REPORTS).map((/** @type {Json} */ task) => task.name);
  const wanted = chosen && !newest.includes(chosen) ? [...newest, chosen] : newest;
  const reports = useReports(model.name, wanted);
  const owned = ownedUnits(model.capacity);
  const slabs = model.tasks.map((/** @type {Json} */ task) => ({
    name: task.name,
    classes: task.classes,
    units: owned[task.name] ?? 0,
    reads: readUnits(reports[task.name]?.reads),
  }));
  const arcs = slabs.filter((/** @type {any} */ slab) =>
    Object.values(slab.reads ?? {}).some((units) => units > 0),
  ).length;
  if (slabs.length === 0) {
    const waiting = model.candidates?.at(-1);
    return html`
      ${
        waiting !== undefined &&
        html`<${Empty} title="Nothing answers yet">
        <p>Version ${waiting} has learned, and waits until somebody activates it. Then its stack is shown here.</p>
        <p><a class="button primary" href=${to("models", model.name, "try", String(waiting))}>Try it</a></p>
      <//>`
      }
      ${waiting === undefined && html`<${Empty} title="Nothing learned yet">
        <p>${model.name} takes images of ${shape(model.input)}. Teach it a first task: a folder in which each class has a folder of images.</p>
        <${May} scope="learn"><p><a class="button primary"
          href=${to("models", model.name, "teach")}>Teach a task</a></p><//>
      <//>`}
      <${Section} title="What it is"><${About} model=${model} />
        <${May} scope="admin"><${Acts} model=${model} reload=${reload} /><//><//>
    `;
  }
  return html`
    <${Section} title="The stack"
      note=${`Each task is an engram of its own upon the commons, which all of them read. ${arcs > 0 ? "Curves on the right are units that a task reads of an earlier one." : "None reads units of another so far."} Nothing of it changes when a task is added.`}>
      <${Stack} model=${model.name} slabs=${slabs} commons=${commonsText(model)} selected=${chosen} />
    <//>
    ${chosen && html`<${Task} model=${model} report=${reports[chosen]} name=${chosen} reload=${reload} />`}
    <${Section} title="Tasks" acts=${html`<${May} scope="learn"><a class="button"
      href=${to("models", model.name, "teach")}>Teach another</a><//>`}>
      <${TaskTable} model=${model} reports=${reports} chosen=${chosen} />
    <//>
    <div class="pair">
      <${Section} title="Room" note="Units of each layer that tasks own, and those that are free." acts=${html`<${May}
        scope="admin"><${Widen} model=${model} reload=${reload} /><//>`}>
        <${Room} capacity=${model.capacity} tasks=${model.tasks} />
      <//>
      <${Section} title="What it is"><${About} model=${model} />
        <${May} scope="admin"><${Acts} model=${model} reload=${reload} /><//><//>
    </div>
  `;
}

/** What the commons are, in a few words. @param {Json} model */
function commonsText(model) {
  const parts = Array.isArray(model.commons) ? model.commons : [model.commons];
  return parts
    .map((/** @type {Json} */ part) =>
      part.kind === "pretrained"
        ? `network ${part.backbone}${parts.length > 1 ? ` at ${number(part.source.preprocessing.size)} pixels` : ""}`
        : `${number(part.features ?? 0)} ${part.dictionary === "learned" || !part.dictionary ? "" : `${part.dictionary} `}features, fixed`,
    )
    .join(" + ");
}

/** @param {{ model: any, reports: Record<string, Json>, chosen: string | null }} given */
function TaskTable({ model, reports, chosen }) {
  return html`
    <table class="wide">
      <caption class="hidden">Tasks</caption>
      <thead><tr><th scope="col">Task</th><th scope="col">Classes</th><th scope="col" class="figure">Accuracy</th>
        <th scope="col">Worst class</th><th scope="col" class="figure">Recognised</th></tr></thead>
      <tbody>
        ${[...model.tasks].reverse().map((/** @type {Json} */ task) => {
          const report = reports[task.name]?.report;
          const worst =
            report && Object.entries(report.per_class ?? {}).sort((one, other) => one[1].recall - other[1].recall)[0];
          return html`
            <tr class=${chosen === task.name ? "chosen" : ""}>
              <th scope="row"><a href=${to("models", model.name, "tasks", task.name)}>${task.name}</a></th>
              <td data-name="Classes">${task.classes.slice(0, 6).join(", ")}
                ${task.classes.length > 6 && ` and ${task.classes.length - 6} more`}</td>
              <td class="figure" data-name="Accuracy">${percent(report?.accuracy?.kept)}</td>
              <td data-name="Worst class">${worst ? html`${shownLabel(task, worst[0])} <span class="note">${percent(worst[1].recall)}
                </span>` : "–"}</td>
              <td class="figure" data-name="Recognised">${percent(report?.recognised)}</td>
            </tr>
          `;
        })}
      </tbody>
    </table>
  `;
}

/** One task: how each of its classes does, and what learning it took. @param {{ model: any, name: string, report: any, reload: () => void }} given */
function Task({ model, name, report, reload }) {
  const found = report?.report;
  const has = useValue(offers);
  const task = model.tasks.find((/** @type {Json} */ one) => one.name === name);
  const renamed = (/** @type {Json} */ version) => {
    reload();
    go("models", model.name, ...(version.status === "candidate" ? ["versions"] : []));
  };
  return html`
    <${Section} title=${`Task ${name}`} acts=${html`
      ${has.has(RENAME) && html`<${May} scope="admin"><${Rename} model=${model.name} task=${task} waits=${model.publish === "manual"} done=${renamed} /><//>`}
      <a class="button quiet" href=${to("models", model.name)}>Close</a>`}>
      ${task.learned_as && html`<p class="note">Learned as ${task.learned_as.name}: ${task.learned_as.classes.join(", ")}.</p>`}
      ${
        report === undefined
          ? html`<p class="loading">Loading…</p>`
          : found === null
            ? html`<p>There is no report of how it was learned.</p>`
            : html`
        <${Recalls} report=${found} task=${task} />
        <${Facts} of=${[
          ["Came with version", number(report.version)],
          ["Held-out accuracy, task given", percent(found.accuracy?.kept)],
          ["Held-out accuracy, no task given", percent(found.answered)],
          ["Recognised as of this task", percent(found.recognised)],
          report.closure > 1.005 && ["An answer computes", `${report.closure.toFixed(2)} × its own network, with what it reads of other tasks`],
        ]} />
        ${found.warnings?.length > 0 && html`<ul class="findings">
          ${found.warnings.map((/** @type {string} */ one) => html`<li class="warn">${one}</li>`)}</ul>`}
      `
      }
    <//>
  `;
}

/** What a label is called now that a task was learned under. @param {any} task @param {string} label */
function shownLabel(task, label) {
  return task?.classes[task.learned_as?.classes.indexOf(label) ?? -1] ?? label;
}

/** How often each class is found, with the limits of what so few images can tell. @param {{ report: any, task?: any }} given */
export function Recalls({ report, task }) {
  const classes = Object.entries(report.per_class ?? {});
  if (classes.length === 0) return null;
  return html`
    <h3>Recall of each class</h3>
    <ul class="shares">
      ${classes.map(
        ([name, one]) => html`
        <${ShareRow} name=${shownLabel(task, name)} value=${one.recall} low=${one.interval?.[0]} high=${one.interval?.[1]}>
          ${counted(one.held_out, "image")} held out; 95 % interval ${percent(one.interval?.[0], 0)} to ${percent(one.interval?.[1], 0)}
        <//>
      `,
      )}
    </ul>
  `;
}

/**
 * How many more tasks have room that take as many units as those there do; null where none has any of its own.
 * @param {Json[]} capacity
 */
function moreTasks(capacity) {
  const left = capacity.map((layer) => {
    const owned = Object.values(layer.owned).map(Number).filter((units) => units > 0);
    return owned.length ? Math.floor((layer.free * owned.length) / owned.reduce((sum, units) => sum + units, 0)) : null;
  }).filter((tasks) => tasks !== null);
  return left.length ? Math.min(...left) : null;
}

/** @param {{ capacity: Json[], tasks: Json[] }} given */
function Room({ capacity, tasks }) {
  const more = moreTasks(capacity);
  return html`
    ${more !== null && html`<p>Room for about <strong>${counted(more, "more task")}</strong> like those here.</p>`}
    <ul class="room">
      ${capacity.map(
        (/** @type {Json} */ layer) => html`
        <li>
          <span class="room-name">${layer.layer}</span>
          <span class="room-bar" aria-hidden="true">
            ${tasks.map((/** @type {Json} */ task, /** @type {number} */ index) => html`<span
              style=${{ width: `${((layer.owned[task.name] ?? 0) / layer.units) * 100}%`, "--tint": `${40 + 60 * ((index + 1) / tasks.length)}%` }}>
                </span>`)}
          </span>
          <span class="room-value">${number(layer.free)} of ${number(layer.units)} free</span>
        </li>
      `,
      )}
    </ul>
  `;
}

/** A larger budget, where it is a multiple of one task's units. @param {{ model: any, reload: () => void }} given */
function Widen({ model, reload }) {
  const now = Math.max(...model.capacity.map((/** @type {Json} */ layer) => layer.units), 1);
  const budget = Object.fromEntries(model.capacity.map((/** @type {Json} */ layer) => [layer.layer, layer.units * 2]));
  const act = useCallback(() => json(`v1/models/${path(model.name)}`, { method: "PATCH", json: { budget } }), [model]);
  if (now <= 1) return null;
  return html`<${Asking} label="Double the room" title="Double the room?" act=${act} done=${reload}
    question="Every layer gets room for twice as many units. Answers stay as they are, and this costs nothing until tasks take it. It cannot be taken back." />`;
}

/** @param {{ model: any }} given */
function About({ model }) {
  const method = model.exact
    ? html`${model.method} <${Mark} kind="good">old answers never change<//>`
    : html`${model.method} <${Mark} kind="warn">forgetting is measured<//>`;
  return html`
    <${Facts} of=${[
      ["Version", number(model.version)],
      ["Images", shape(model.input)],
      ["Method", method],
      ["Backbone", model.backbone],
      model.publish && ["What is learned", model.publish === "manual" ? "is approved by hand before it answers" : "answers at once"],
      ["Commons", commonsText(model)],
      [
        "Keeps of training images",
        { none: "nothing", features: "some features", data: "the images" }[/** @type {string} */ (model.retention)] ??
          model.retention,
      ],
    ]} />
  `;
}

/** What can be done to the model as a whole. @param {{ model: any, reload: () => void }} given */
function Acts({ model, reload }) {
  const where = `v1/models/${path(model.name)}`;
  const remove = useCallback(() => ask(where, { method: "DELETE" }), [where]);
  const manual = model.publish === "manual";
  const publish = useCallback(
    () => json(where, { method: "PATCH", json: { publish: manual ? "auto" : "manual" } }),
    [where, manual],
  );
  return html`
    <div class="acts end">
      ${
        model.publish &&
        html`<${Asking} label=${manual ? "Publish without approval" : "Approve by hand"}
          title=${manual ? "Publish without approval?" : "Approve versions by hand?"} act=${publish}
            done=${reload}
        question=${manual ? "From then on what is learned answers at once, without anybody looking at it. What waits now goes on waiting." : "From then on a version that was learned is a candidate: it can be tried and evaluated, and answers only once somebody activates it."} />`
      }
      <${Asking} label="Delete this model" kind="danger" title=${`Delete ${model.name}?`} act=${remove}
        done=${() => go("models")}
        question="The model goes with its history, and its open jobs are cancelled. This cannot be taken back." />
    </div>
  `;
}
