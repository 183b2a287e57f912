/** One job: how far it is, its curves as they come, its log, and at the end the report of what was learned. */

import { html, useCallback, useEffect, useState } from "../vendor/preact.js";
import { Asking } from "../parts/dialog.js";
import { Chart } from "../parts/chart.js";
import { Facts, Loaded, Mark, Moment, Section, ShareRow, Title, Trouble } from "../parts/view.js";
import { follow } from "../data/events.js";
import { json, path } from "../service.js";
import { announce, useLoaded } from "../state.js";
import { to } from "../routes.js";
import { counted, duration, number, percent, size } from "../words.js";
import { Recalls } from "./model.js";
import { EvaluationReport } from "./evaluation_report.js";

/** @typedef {import("../service.js").Json} Json */
/** @typedef {{ at: number, event: Json }} Heard */

/** @type {Record<string, string>} */
export const STATES = { queued: "", running: "accent", succeeded: "good", failed: "bad", cancelled: "warn" };
const OVER = ["succeeded", "failed", "cancelled"];
const MOST_HEARD = 4000;
/** Under curves; after units were left out the loss may begin higher than it was. */
const CUT = "; from the line on without the units it can do without";

/** What is done in each phase. @type {Record<string, string>} */
const PHASES = {
  loading: "Reading the images",
  training: "Training its network",
  pruning: "Finding the units it can do without",
  recovering: "Training what remains",
  freezing: "Freezing it",
  recognising: "Learning to recognise the task",
  verifying: "Checking that old answers are unchanged",
  publishing: "Publishing the version",
  evaluating: "Answering the images",
};

/** @param {{ id: string }} given */
export function JobScreen({ id }) {
  const job = useLoaded((signal) => json(`v1/jobs/${path(id)}`, { signal }), [id]);
  const [heard, setHeard] = useState(/** @type {Heard[]} */ ([]));
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  useEffect(() => {
    setHeard([]);
    let phase = "";
    return follow(id, (event) => {
      if (event.problem) {
        setProblem(event.problem);
        return;
      }
      setHeard((before) => [...before.slice(-MOST_HEARD), { at: Date.now(), event }]);
      if (event.phase && event.phase !== phase) {
        phase = event.phase;
        announce(PHASES[phase] ?? phase);
      }
      if (OVER.includes(event.state)) announce(`The job ${event.state}`);
      if (event.state) job.reload();
    });
  }, [id]);
  return html`
    ${job.data === null && html`<${Title} eyebrow=${html`<a href=${to("jobs")}>Jobs</a>`} name="Job" />`}
    <${Loaded} of=${job}>
      ${(/** @type {Json} */ found) => html`
        <${Title} eyebrow=${html`<a href=${to("jobs")}>Jobs</a> · <a href=${to("models", found.model)}>${found.model}
          </a>`} name=${found.task || (found.kind === "evaluate" ? "Evaluation" : "Job")}>
          <${Mark} kind=${STATES[found.state]}>${found.state}<//>
          <${Cancel} job=${found} reload=${job.reload} />
        <//>
        <${Trouble} problem=${problem} />
        <${Progress} job=${found} heard=${heard} />
        <${End} job=${found} />
        <${Curves} job=${found} heard=${heard} />
        <${Log} heard=${heard} job=${found} />
      `}
    <//>
  `;
}

/** @param {{ job: Json, reload: () => void }} given */
function Cancel({ job, reload }) {
  const act = useCallback(() => json(`v1/jobs/${path(job.id)}/cancel`, { method: "POST" }), [job.id]);
  if (OVER.includes(job.state)) return null;
  return html`<${Asking} label="Cancel the job" kind="danger" title="Cancel this job?" act=${act} done=${reload}
    question="It ends at its next step, and nothing is published. The model stays as it is." />`;
}

/** @param {{ job: Json, heard: Heard[] }} given */
function Progress({ job, heard }) {
  if (OVER.includes(job.state)) return null;
  const last = [...heard].reverse().find((/** @type {Heard} */ one) => one.event.phase)?.event ?? job.progress ?? {};
  const phase = last.phase ?? job.phase;
  const waiting = job.state === "queued";
  return html`
    <section class="card progress" aria-label="Progress">
      <p class="progress-line"><strong>${waiting ? "Waiting for a worker" : (PHASES[phase] ?? phase ?? "Beginning")}
        </strong><span>${waiting ? "" : percent(last.fraction ?? 0, 0)}</span></p>
      <div class="bar-wide" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100"
        aria-valuenow=${Math.round((last.fraction ?? 0) * 100)}>
        <span style=${{ width: `${(last.fraction ?? 0) * 100}%` }}></span>
      </div>
      <${Facts} of=${[
        last.epoch && ["Pass", number(last.epoch)],
        last.loss !== null && last.loss !== undefined && ["Loss", last.loss.toFixed(3)],
        last.accuracy !== null && last.accuracy !== undefined && ["Held-out accuracy", percent(last.accuracy)],
        last.units && [
          "Units of its network",
          number(
            typeof last.units === "number"
              ? last.units
              : Object.values(last.units).reduce((/** @type {number} */ sum, units) => sum + Number(units), 0),
          ),
        ],
        job.attempts > 1 && ["Attempt", number(job.attempts)],
      ]} />
      ${waiting && html`<p class="note">It begins as soon as a worker is free. This page may be closed meanwhile.</p>`}
    </section>
  `;
}

/** The measured figures: those that the report keeps, else those that this tab heard. @param {Heard[]} heard @param {Json} job */
function measured(heard, job) {
  /** @type {Json[]} */
  const kept = job.result?.report?.curves ?? [];
  /** @type {Record<"loss" | "heldOut" | "accuracy", [number, number][]>} */
  const found = { loss: [], heldOut: [], accuracy: [] };
  /** Where what remains is trained anew, after units were left out. @type {number | undefined} */
  let cut;
  const add = (/** @type {keyof typeof found} */ name, /** @type {number} */ at, /** @type {any} */ value) => {
    if (typeof value === "number" && Number.isFinite(value)) found[name].push([at, value]);
  };
  kept.forEach((point, at) => {
    if (point.phase === "recovering") cut ??= at + 0.5;
    add("loss", at + 1, point.loss);
    add("heldOut", at + 1, point.held_out_loss);
    add("accuracy", at + 1, point.held_out_accuracy);
  });
  if (kept.length > 0) return { ...found, cut, unit: "passes" };
  let before = "";
  heard
    .filter((one) => one.event.phase)
    .forEach(({ event }, at) => {
      if (event.phase === "recovering") cut ??= at - 0.5;
      add("loss", at, event.loss);
      const figure = `${event.epoch}/${event.accuracy}`;
      if (figure !== before) add("accuracy", at, event.accuracy);
      before = figure;
    });
  return { ...found, cut, unit: "time" };
}

/** @param {{ job: Json, heard: Heard[] }} given */
function Curves({ job, heard }) {
  const { loss, heldOut, accuracy, cut, unit } = measured(heard, job);
  const across = `${unit}${cut === undefined ? "" : CUT}`;
  if (loss.length + accuracy.length < 2) return null;
  return html`
    <div class="pair">
      <section class="card"><${Chart} label="Loss" across=${across} cut=${cut}
        series=${[{ name: "training", kind: "one", points: loss }, ...(heldOut.length > 0 ? [{ name: "held out", kind: "two", points: heldOut }] : [])]} />
          </section>
      <section class="card"><${Chart} label="Held-out accuracy" across=${across} cut=${cut} range=${[0, 1]}
        format=${(/** @type {number} */ value) => percent(value, 0)}
          series=${[{ name: "accuracy", kind: "one", points: accuracy }]} /></section>
    </div>
  `;
}

/** @param {{ job: Json }} given */
function End({ job }) {
  const wanted = job.state === "succeeded" && job.kind !== "evaluate";
  const model = useLoaded(
    (signal) => (wanted ? json(`v1/models/${path(job.model)}`, { signal }) : Promise.resolve(null)),
    [job.id, wanted],
  );
  if (job.state === "failed")
    return html`<${Trouble} problem=${{ code: job.error?.code, message: job.error?.detail }} />
      <p class="acts"><a class="button" href=${to("models", job.model, job.kind === "evaluate" ? "evaluate" : "teach")}>
        ${job.kind === "evaluate" ? "Evaluate again" : "Teach it again"}</a></p>`;
  if (job.state === "cancelled")
    return html`<p class="notice">It was cancelled. Nothing was published, and the model is as it was.</p>`;
  const evaluation = job.result?.evaluation;
  if (evaluation) return html`<${EvaluationReport} model=${job.model} evaluation=${evaluation} />`;
  if (!wanted) return null;
  const candidates = model.data?.candidates ?? [];
  const manual = candidates.includes(job.result?.version);
  return html`
    <p class="notice good"><span>
      ${learned(job, model.data)}
        </span>
      <span class="acts"><a class="button primary"
        href=${to("models", job.model, "try", ...(manual ? [String(job.result.version)] : []))}>Try it</a>
        ${manual ? html`<a class="button" href=${to("models", job.model, "versions")}>To the versions</a>` : html`<a
          class="button" href=${to("models", job.model)}>See the stack</a>`}</span></p>
    ${job.result?.report && html`<${Report} model=${job.model} report=${job.result.report} />`}
  `;
}

/** What became of the version that a job made, as far as it is known. @param {Json} job @param {any} model */
function learned(job, model) {
  const version = job.result?.version;
  if (!model) return "Learned.";
  if (model.candidates?.includes(version))
    return `Learned as a candidate, version ${version}. It answers once it is activated.`;
  if (model.version === version) return `Learned. Version ${version} of ${job.model} answers now.`;
  return `Learned as version ${version}. Now version ${model.version} of ${job.model} answers.`;
}

/** What was learned: recall, what other tasks take, what was left out. @param {{ model: string, report: any }} given */
function Report({ model, report }) {
  const left = report.left_out?.count ?? 0;
  const unread = report.unreadable ?? [];
  return html`
    <${Section} title="Report">
      <${Facts} of=${[
        ["Held-out accuracy, task given", percent(report.accuracy?.kept)],
        ["Held-out accuracy, no task given", percent(report.answered)],
        ["Recognised as of this task", percent(report.recognised)],
        ["Held out", counted(report.held_out ?? 0, "image")],
        [
          "Learning took",
          duration(
            Object.values(report.seconds ?? {}).reduce((/** @type {number} */ sum, each) => sum + Number(each), 0),
          ),
        ],
        report.bytes_written && ["Adds", size(report.bytes_written)],
      ]} />
      <${Recalls} report=${report} />
      ${report.recognised < 1 && html`<${Strays} model=${model} report=${report} />`}
      ${report.warnings?.length > 0 && html`<ul class="findings">
        ${report.warnings.map((/** @type {string} */ one) => html`<li class="warn">${one}</li>`)}</ul>`}
      ${
        unread.length > 0 &&
        html`<details><summary>${counted(unread.length, "image")} could not be read</summary>
        <ul>${unread.map((/** @type {Json} */ one) => html`<li>${one.name}: ${one.detail} <code>${one.code}</code>
          </li>`)}</ul></details>`
      }
      ${
        left > 0 &&
        html`<details><summary>${counted(left, "file was", "files were")} left out</summary>
        <ul>${report.left_out.folders.map((/** @type {Json} */ one) => html`<li>
          ${one.folder || "the top folder"}: ${number(one.count)}, ${one.reason.replaceAll("_", " ")} (${one.names.join(", ")})</li>`)}
            </ul></details>`
      }
    <//>
  `;
}

/** The other tasks that held-out images are given to. @param {{ model: string, report: any }} given */
function Strays({ model, report }) {
  const all = Object.entries(report.given_to ?? {});
  const others = all.filter(([task]) => task !== report.task);
  const images = all.reduce((sum, [, count]) => sum + Number(count), 0);
  return html`
    <h3>Given to other tasks</h3>
    <p class="note">When the task is not named, ${percent(1 - report.recognised)} of its held-out images are taken for images of another task. <a
      href=${to("models", model, "evaluate")}>Evaluate</a> says of images of yours which classes they are taken for.</p>
    ${
      others.length > 0 &&
      html`<ul class="shares">${others.map(
        ([task, count]) => html`
        <${ShareRow} name=${task} value=${Number(count) / images}>
          ${counted(Number(count), "image")} of ${number(images)}<//>
      `,
      )}</ul>`
    }
  `;
}

/** @param {{ heard: Heard[], job: Json }} given */
function Log({ heard, job }) {
  /** @type {{ at: number, state?: string, phase?: string }[]} */
  const lines = [];
  // Of a job that was over when this tab came to it, no time is known but that of its coming.
  const late = OVER.includes(heard[0]?.event.state);
  let [state, phase] = ["", ""];
  for (const { at, event } of heard) {
    const [before, done] = [state, phase];
    state = event.state || state;
    phase = event.phase || phase;
    if (state !== before) lines.push({ at, state });
    if (phase !== done) lines.push({ at, phase });
  }
  return html`
    <details class="card log">
      <summary>Log</summary>
      <${Facts} of=${[
        ["Job", html`<code>${job.id}</code>`],
        ["Submitted", html`<${Moment} at=${job.created_at} />`],
        job.finished_at && ["Ended", html`<${Moment} at=${job.finished_at} />`],
        ["Attempts", number(job.attempts)],
      ]} />
      <ol>${lines.map(({ at, state, phase }) => html`<li>${!late && html`<time>
        ${new Date(at).toLocaleTimeString("en-GB")}</time>`} ${state ? html`<strong>${state}</strong>` : (PHASES[phase ?? ""] ?? phase)}</li>`)}
        </ol>
    </details>
  `;
}
