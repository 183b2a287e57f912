/** Novelty: whether what comes in is of tasks that the model knows, now and over the last day. */

import { html, useCallback, useEffect, useState } from "../vendor/preact.js";
import { Chart } from "../parts/chart.js";
import { May } from "../parts/permission.js";
import { Empty, Facts, Loaded, Mark, Moment, Section } from "../parts/view.js";
import { json, path } from "../service.js";
import { useLoaded, useRepeat } from "../state.js";
import { to } from "../routes.js";
import { ago, number, percent } from "../words.js";
import { NOVELTY } from "./models.js";

/** @typedef {import("../service.js").Json} Json */

const LOOK_AGAIN = 2000;
const MOST_POINTS = 900;
/** Images that a point of the curve is of, at the least. */
const LEAST_IMAGES = 20;

/** @type {Record<string, string>} */
const MEANINGS = {
  known: "What comes in looks like what it has learned.",
  drift:
    "Images look less usual than at first, while most are still known. Look whether cameras, light or products have changed.",
  "new task suspected":
    "More images than usual are of none of its tasks. Gather them, sort them into classes, and teach them.",
};

/** What was seen of models since the page is open. @type {Map<string, [number, number][]>} */
const seen = new Map();

/** @param {{ model: any }} given */
export function Novelty({ model }) {
  const novelty = useLoaded((signal) => json(`v1/models/${path(model.name)}/novelty`, { signal }), [model.name]);
  const [points, setPoints] = useState(seen.get(model.name) ?? []);
  useRepeat(useCallback(novelty.reload, []), LOOK_AGAIN);
  useEffect(() => {
    if (!novelty.data) return;
    const at = `${model.name}`;
    const next = /** @type {[number, number][]} */ ([
      ...(seen.get(at) ?? []),
      [Date.now() / 1000, novelty.data.unknown_share],
    ]).slice(-MOST_POINTS);
    seen.set(at, next);
    setPoints(next);
  }, [novelty.data]);
  return html`
    <${Loaded} of=${novelty}>
      ${(/** @type {Json} */ found) => html`
        <${Section} title="What comes in">
          <p class="state-line">${found.samples > 0 ? html`<${Mark} kind=${NOVELTY[found.state]}>${found.state}<//>` : html`<${Mark}>nothing seen yet<//>`}
            <span>${meaning(found)}</span></p>
          <${Facts} of=${[
            ["Images answered", number(found.samples)],
            ["Unknown", `${number(found.unknown)} (${percent(found.unknown_share)})`],
            ["Since", html`<${Moment} at=${found.since} />`],
            ["Version", number(found.version)],
          ]} />
          ${found.state !== "known" && html`<${May} scope="learn"><p class="acts">
            <a class="button primary" href=${to("models", model.name, "teach")}>Teach a task</a></p><//>`}
        <//>
        ${
          (found.samples > 0 || together(found.history?.spans ?? []).length > 1) &&
          html`<${Shares} history=${found.history?.spans ?? []} seconds=${found.history?.seconds} seen=${points} />`
        }
        ${
          found.samples === 0
            ? html`<${Empty} title=${`No images of version ${found.version} yet`}>
              <p>Images that are answered without being told their task are watched here. Counts begin anew with each version.</p>
                <p><a class="button" href=${to("models", model.name, "try")}>Try some</a></p><//>`
            : html`
            <div class="pair">
              <${Section} title="Do they look less usual?"
                note=${`A Welch test of the newest window against the first images of this version${found.welch.p_value === null ? ": it begins once there are enough of both" : ""}.`}>
                <${Facts} of=${[
                  ["Reference", `${number(found.welch.reference_samples)} images`],
                  ["Mean novelty then", fixed(found.welch.reference_mean)],
                  ["Mean novelty now", fixed(found.welch.window_mean)],
                  ["p-value", found.welch.p_value === null ? "–" : found.welch.p_value.toExponential(1)],
                ]} />
              <//>
              <${Section} title="Are more of them unknown?" note="A cumulative sum, which alarms at its threshold.">
                <${Facts} of=${[
                  ["Sum", fixed(found.cusum.value)],
                  ["Threshold", fixed(found.cusum.threshold)],
                  ["Usual share", percent(found.cusum.usual)],
                  ["Alarm", found.cusum.raised ? "raised" : "no"],
                ]} />
              <//>
            </div>
            ${found.replicas.length > 1 && html`<${Section} title="Replicas"><ul>
              ${found.replicas.map((/** @type {Json} */ one) => html`<li><code>${one.replica}
                </code> <${Mark} kind=${NOVELTY[one.state]}>${one.state}<//> ${number(one.samples)} images</li>`)}</ul>
                <//>`}
          `
        }
      `}
    <//>
  `;
}

/** What the state means; of few images no alarm is no news yet. @param {Json} found */
function meaning(found) {
  if (found.samples === 0) return "";
  if (found.state === "known" && found.welch.p_value === null)
    return "No alarm so far; of so few images it can hardly be told yet.";
  return MEANINGS[found.state] ?? "";
}

/** Spans with those after them until there are enough images, since a share of a few is none. @param {Json[]} history */
export function together(history) {
  /** @type {Json[]} */
  const found = [];
  for (const one of history) {
    const last = found.at(-1);
    if (last === undefined || last.samples >= LEAST_IMAGES) found.push({ ...one });
    else found.push(joined(/** @type {Json} */ (found.pop()), one));
  }
  const [before, last] = found.slice(-2);
  if (last?.samples < LEAST_IMAGES) found.splice(-2, 2, joined(before, last));
  return found;
}

/** Two spans as one. @param {Json} one @param {Json} other */
function joined(one, other) {
  return { ...one, samples: one.samples + other.samples, unknown: one.unknown + other.unknown };
}

/**
 * The share of unknown images over time: of the last day, or, until there is enough of that, since the page is open.
 *
 * @param {{ history: Json[], seconds: number, seen: [number, number][] }} given
 */
function Shares({ history, seconds, seen }) {
  const gathered = together(history);
  const whole = gathered.length > 1;
  const points = whole
    ? gathered.map((one) => [new Date(one.began_at).getTime() / 1000, one.unknown / one.samples])
    : seen;
  const began = points[0]?.[0] ?? 0;
  const most = Math.max(...points.map(([, share]) => share), 0);
  return html`
    <section class="card"><${Chart} wide=${true} label="Share of unknown images"
      across=${whole ? `now; by ${seconds / 60} minutes, of all versions` : "since this page is open"}
      begin=${whole && ago(history[0].began_at)}
      range=${[0, Math.max(0.1, Math.ceil(most * 10) / 10)]}
      format=${(/** @type {number} */ value) => percent(value, 0)}
      series=${[{ name: "unknown", kind: "one", points: points.map(([at, share]) => [at - began, share]) }]} /></section>
  `;
}

/** @param {number | null} value */
function fixed(value) {
  return value === null ? "–" : value.toFixed(2);
}
