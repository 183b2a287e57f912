/** Jobs of all models, the newest first. */

import { html, useCallback } from "../vendor/preact.js";
import { Empty, Loaded, Mark, Meter, Moment, Title } from "../parts/view.js";
import { json } from "../service.js";
import { useLoaded, useRepeat } from "../state.js";
import { to } from "../routes.js";
import { percent } from "../words.js";
import { STATES } from "./job.js";

const LOOK_AGAIN = 3000;
const MOST = 100;

export function Jobs() {
  const jobs = useLoaded((signal) => json("v1/jobs", { query: { limit: MOST }, signal }), []);
  useRepeat(useCallback(jobs.reload, []), LOOK_AGAIN);
  return html`
    <${Title} name="Jobs" />
    <${Loaded} of=${jobs}>
      ${(/** @type {any} */ found) =>
        found.jobs.length === 0
          ? html`<${Empty} title="No jobs"><p>Each task that is learned is a job. Choose a model, and teach it one.</p>
            <p><a class="button primary" href=${to("models")}>To the models</a></p><//>`
          : html`
          <div class="card flush"><table class="wide">
            <caption class="hidden">Jobs</caption>
            <thead><tr><th scope="col">Task</th><th scope="col">Model</th><th scope="col">State</th>
              <th scope="col">Progress</th><th scope="col">Submitted</th></tr></thead>
            <tbody>
              ${found.jobs.map(
                (/** @type {any} */ job) => html`
                <tr key=${job.id}>
                  <th scope="row"><a href=${to("jobs", job.id)}>${job.task || "all tasks"}
                    ${job.kind === "evaluate" && html`<small>evaluation</small>`}</a></th>
                  <td data-name="Model"><a href=${to("models", job.model)}>${job.model}</a></td>
                  <td data-name="State"><${Mark} kind=${STATES[job.state]}>${job.state}<//>${job.error && html` <code>
                    ${job.error.code}</code>`}</td>
                  <td data-name="Progress">${job.state === "running" ? html`<span class="line">
                    <${Meter} value=${job.progress?.fraction ?? 0} /> ${percent(job.progress?.fraction ?? 0, 0)}
                      </span>` : "–"}</td>
                  <td data-name="Submitted"><${Moment} at=${job.created_at} /></td>
                </tr>
              `,
              )}
            </tbody>
          </table></div>
        `}
    <//>
  `;
}
