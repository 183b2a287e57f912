/** The report of an evaluation: how each version does, what it takes for what, and where two of them differ. */

import { html } from "../vendor/preact.js";
import { Facts, Mark, Section, ShareRow } from "../parts/view.js";
import { to } from "../routes.js";
import { counted, number, percent } from "../words.js";

/** @typedef {import("../service.js").Json} Json */

const MOST_CONFUSED = 12;

/** @param {{ model: string, evaluation: Json }} given */
export function EvaluationReport({ model, evaluation }) {
  return html`
    <p class="notice good"><span>
      ${counted(evaluation.images, "image")} answered${evaluation.task && html` as of the task ${evaluation.task}`}.${evaluation.unreadable?.count > 0 && ` ${number(evaluation.unreadable.count)} could not be read.`}
        </span><span class="acts"><a class="button" href=${to("models", model, "versions")}>To the versions</a></span></p>
    <div class="pair">${evaluation.versions.map(
      (/** @type {Json} */ one) => html`<${Version} of=${one} images=${evaluation.images}
        shared=${shared(evaluation.versions)} />`,
    )}</div>
    ${evaluation.comparison && html`<${Comparison} of=${evaluation.comparison} versions=${evaluation.versions} />`}
  `;
}

/** How many of the images are of classes that a version has learned. @param {Json} version */
function familiar(version) {
  return Object.values(version.tasks ?? {}).reduce((sum, task) => sum + task.images, 0);
}

/** The tasks that all of them have learned, where they have not learned the same. @param {Json[]} versions */
function shared(versions) {
  const counts = versions.map(familiar);
  if (counts.every((one) => one === counts[0])) return [];
  return Object.keys(versions[0].tasks ?? {}).filter((task) => versions.every((one) => one.tasks?.[task]));
}

/** @param {{ of: any, images: number, shared: string[] }} given */
function Version({ of, images, shared }) {
  const tasks = Object.entries(of.tasks ?? {});
  const known = familiar(of);
  const both = shared.map((task) => of.tasks[task]);
  const common = both.reduce((sum, task) => sum + task.images, 0);
  const right = both.reduce((sum, task) => sum + task.images * task.accuracy, 0);
  return html`
    <${Section} title=${`Version ${of.version}`} note=${known < images ? `It has learned the classes of ${number(known)} of the ${counted(images, "image")}: its accuracy is of these alone.` : ""}>
      <${Facts} of=${[
        ["Accuracy, no task given", percent(of.accuracy)],
        ["Accuracy, task given", percent(of.accuracy_with_task)],
        common > 0 && [`Accuracy on the ${number(common)} that both know`, percent(right / common)],
        ["Not known", percent(of.unknown_share)],
        ["Calibration error", percent(of.calibration_error)],
        of.strangers?.images > 0 && [
          "Images of other classes told as unknown",
          `${number(of.strangers.unknown)} of ${number(of.strangers.images)}`,
        ],
      ]} />
      ${tasks.map(
        ([task, figures]) => html`
        <h3>${task} <span class="note">${percent(figures.recognised)} given to it</span></h3>
        <ul class="shares">${Object.entries(figures.classes).map(
          ([label, one]) => html`
          <${ShareRow} name=${label} value=${one.recall} low=${one.interval[0]} high=${one.interval[1]}>
            ${counted(one.images, "image")}; ${percent(one.recall_with_task)} with the task given<//>`,
        )}</ul>
      `,
      )}
      <${Confused} of=${of.confusion} />
    <//>
  `;
}

/** What is taken for what, the most frequent first. @param {{ of: any }} given */
function Confused({ of }) {
  const wrong = Object.entries(of ?? {})
    .flatMap(([truth, answers]) => Object.entries(answers).map(([answer, count]) => ({ truth, answer, count })))
    .filter(({ truth, answer }) => truth !== answer)
    .sort((one, other) => other.count - one.count);
  if (wrong.length === 0) return null;
  return html`
    <h3>Taken for another</h3>
    <ul class="plain">${wrong.slice(0, MOST_CONFUSED).map(({ truth, answer, count }) => html`<li>
      ${counted(count, "image")} of <strong>${truth}</strong> as <strong>${answer}</strong></li>`)}</ul>
  `;
}

/** @param {{ of: any, versions: Json[] }} given */
function Comparison({ of, versions }) {
  const [one, other] = versions.map((/** @type {Json} */ version) => version.version);
  return html`
    <${Section}
      title=${of.differences === 0 ? `Versions ${one} and ${other} answer alike` : `${counted(of.differences, "image is", "images are")} answered differently`}
      note=${of.cut ? `The gravest ${number(of.listed.length)} are listed.` : ""}>
      ${
        of.listed.length > 0 &&
        html`<table class="wide"><caption class="hidden">Differences</caption>
        <thead><tr><th scope="col">Image</th><th scope="col">Version ${one}</th><th scope="col">Version ${other}</th>
          <th scope="col">Differs in</th></tr></thead>
        <tbody>${of.listed.map(
          (/** @type {Json} */ row) => html`<tr><th scope="row"><code>${row.image}</code></th>
          ${row.answers.map((/** @type {Json} */ answer) => html`<td data-name=${`Version ${answer.version}`}>
            ${answer.label} <span class="note">${answer.task}, ${percent(answer.probability)}</span>
              ${answer.known === false && html` <${Mark} kind="warn">unknown<//>`}</td>`)}
          <td data-name="Differs in">${row.differs.join(", ")}</td></tr>`,
        )}</tbody></table>`
      }
    <//>
  `;
}
