/** The versions of a model: the line of its commits, what each changed, and the way back; and the certificate of one. */

import { html, useCallback, useState } from "../vendor/preact.js";
import { Asking } from "../parts/dialog.js";
import { May } from "../parts/permission.js";
import { Digest, Empty, Facts, Loaded, Mark, Moment, Section, Trouble } from "../parts/view.js";
import { all, json, path, Problem } from "../service.js";
import { announce, useLoaded, useValue } from "../state.js";
import { offers } from "../offers.js";
import { to } from "../routes.js";
import { counted, number, percent } from "../words.js";

/** @typedef {import("../service.js").Json} Json */

/** @param {{ model: any, reload: () => void }} given */
export function Versions({ model, reload }) {
  const versions = useLoaded(
    (signal) => all(`v1/models/${path(model.name)}/versions`, "versions", { signal }),
    [model.name, model.version],
  );
  const again = () => {
    versions.reload();
    reload();
  };
  return html`
    <${Loaded} of=${versions}>
      ${(/** @type {Json[]} */ found) => html`
        <${Section} title="The line of versions"
          note="Every version stays. Activating one adds a version that answers as it did: byte by byte.">
          <ol class="line-of">
            ${found.map((version, at) => html`<${Version} key=${version.version} model=${model} version=${version}
              before=${found.find((one) => one.version === version.parent)} newest=${at === 0}
              alike=${alike(version, active(found))} again=${again} />`)}
          </ol>
        <//>
      `}
    <//>
  `;
}

const REJECT = "/v1/models/{model}/versions/{version}/reject";

/** Whether it answers, waits to be activated, or did once. @param {Json} version @param {Json} model */
function statusOf(version, model) {
  return version.status ?? (version.version === model.version ? "active" : "past");
}

/** @param {Json[]} versions */
function active(versions) {
  return versions.find((one) => one.status === "active");
}

/** Whether one version answers as another does, so that going back to it changes nothing. @param {Json} version @param {Json | undefined} other */
function alike(version, other) {
  const served = (/** @type {Json} */ one) =>
    JSON.stringify([one.tasks, one.engrams, one.decoder, one.background, one.engine]);
  return other !== undefined && served(version) === served(other);
}

/** What a version changed against the one before it. @param {Json} version @param {Json | undefined} before */
function changed(version, before) {
  if (version.kind === "activate") return `answers as version ${version.target}`;
  if (version.kind === "reject") return `rejected version ${version.target}`;
  if (version.kind === "learn") return html`learned <strong>${version.task}</strong>`;
  if (version.kind === "rename") return renamed(version);
  const names = (/** @type {Json} */ one) => one.tasks.map((/** @type {Json} */ task) => task.name);
  const added = before ? names(version).filter((/** @type {string} */ name) => !names(before).includes(name)) : [];
  if (added.length > 0) return `${version.kind}: ${added.join(", ")}`;
  return (
    {
      create: "made, empty",
      budget: "got more room",
      decoder: "decodes images otherwise",
      publish: "changed whether what it learns is approved by hand",
      adopt: "adopted its network",
    }[/** @type {string} */ (version.kind)] ?? version.kind
  );
}

/** What a rename changed, in words. @param {Json} version */
function renamed(version) {
  const { from, to: after, labels } = version.renamed ?? {};
  const pairs = [[from, after], ...Object.entries(labels ?? {})].filter(([before, now]) => before !== now);
  return `renamed ${pairs.map(([before, now]) => `${before} to ${now}`).join(", ") || version.task}`;
}

/** @param {{ model: any, version: Json, before: Json | undefined, newest: boolean, alike: boolean, again: () => void }} given */
function Version({ model, version, before, newest, alike, again }) {
  const status = statusOf(version, model);
  const act = useCallback(
    () => json(`v1/models/${path(model.name)}/versions/${version.version}/activate`, { method: "POST" }),
    [model.name, version.version],
  );
  const has = useValue(offers);
  const reject = useCallback(
    () => json(`v1/models/${path(model.name)}/versions/${version.version}/reject`, { method: "POST" }),
    [model.name, version.version],
  );
  const known = new Set((before?.tasks ?? []).map((/** @type {Json} */ task) => task.name));
  return html`
    <li class=${`commit ${status}`}>
      <span class="commit-number" aria-hidden="true">${version.version}</span>
      <div class="commit-text">
        <p class="commit-head"><strong class="hidden">Version ${version.version}</strong><span>
          ${changed(version, before)}</span>
          ${status === "active" && version.tasks.length > 0 && html`<${Mark} kind="good">answers<//>`}
            ${status === "candidate" && html`<${Mark} kind="warn">candidate<//>`}</p>
        <p class="note"><${Moment} at=${version.created_at} /> · ${counted(version.tasks.length, "task")}
          ${version.job && html`<${May} scope="learn"> · <a href=${to("jobs", version.job)}>job</a><//>`}</p>
        ${version.tasks.length > 0 && html`<p class="chips">
          ${version.tasks.slice(-12).map((/** @type {Json} */ task) => html`<span
            class=${`chip ${known.has(task.name) ? "" : "new"}`}>${task.name}</span>`)}
              ${version.tasks.length > 12 && html`<span class="chip">and ${version.tasks.length - 12} more</span>`}
                </p>`}
      </div>
      <div class="commit-acts">
        ${status === "candidate" && html`<a class="button quiet"
          href=${to("models", model.name, "try", String(version.version))}>Try it</a>
          <${May} scope="learn"><a class="button quiet" href=${to("models", model.name, "evaluate")}>Evaluate</a><//>`}
        ${version.tasks.length > 0 && html`<a class="button quiet"
          href=${to("models", model.name, "versions", String(version.version))}>Certificate</a>`}
        ${status === "candidate" && has.has(REJECT) && html`<${May} scope="admin"><${Asking} label="Reject" kind="danger"
          title=${`Reject version ${version.version}?`} act=${reject} done=${again}
            question="It waits no longer, nor do those that were learned on it. What answers stays as it is." /><//>`}
        ${
          status !== "active" &&
          (status === "candidate" || !alike) &&
          version.tasks.length > 0 &&
          html`<${May} scope="admin"><${Asking} label=${status === "candidate" ? "Activate" : "Go back to it"}
            title=${`Activate version ${version.version}?`} act=${act}
          done=${() => {
            announce(`Version ${version.version} answers`);
            again();
          }}
          question=${newest || status === "candidate" ? "From then on it answers everybody. What answers now stays in the line, and can be activated again." : `The model then answers as version ${version.version} did. What came later stays in the line, and can be activated again.`} /><//>`
        }
      </div>
    </li>
  `;
}

/** @param {{ model: any, version: number }} given */
export function CertificateScreen({ model, version }) {
  const certificate = useLoaded(
    (signal) => json(`v1/models/${path(model.name)}/versions/${version}/certificate`, { signal }),
    [model.name, version],
  );
  return html`
    <p><a href=${to("models", model.name, "versions")}>← The line of versions</a></p>
    ${
      certificate.error?.code === "certificate_missing"
        ? html`<${Empty} title="Nothing to certify"><p>Version ${version} has learned nothing.</p><//>`
        : html`<${Loaded} of=${certificate}>
          ${(/** @type {Json} */ found) => html`<${Certificate} model=${model} version=${version}
            certificate=${found} />`}<//>`
    }
  `;
}

/** @typedef {{ task: string, agrees: number[], differs: number[] }} Compared */

/** The digests of each task in the certificates of all other versions, against those of this one. @param {string} model @param {number} version @param {Json} certificate */
async function compare(model, version, certificate) {
  const versions = await all(`v1/models/${path(model)}/versions`, "versions");
  const numbers = versions
    .map((one) => one.version)
    .filter((one) => one !== version)
    .slice(0, 100);
  /** @type {Map<string, Compared>} */
  const found = new Map(
    certificate.tasks.map((/** @type {Json} */ row) => [row.task, { task: row.task, agrees: [], differs: [] }]),
  );
  const of = (/** @type {number} */ number) => versions.find((one) => one.version === number)?.engrams ?? [];
  /** Where a version has its task from: names are free again once a version is rejected or left. @param {string} task @param {number} number */
  const learned = (task, number) =>
    versions.findLast(
      (one) =>
        one.kind === "learn" &&
        one.task === task &&
        (one.engrams ?? []).every((/** @type {string} */ hash) => of(number).includes(hash)),
    )?.version;
  let fresh = null;
  // Asked whether it is ready, the service loads a version, and compares what it answers with what is certified.
  await json(`v2/models/${path(model)}/versions/${version}/ready`);
  for (const one of [version, ...numbers]) {
    const other = await json(`v1/models/${path(model)}/versions/${one}/certificate`).catch((error) => {
      if (error instanceof Problem && error.code === "certificate_missing") return null;
      throw error;
    });
    if (one === version) fresh = other;
    for (const row of other?.tasks ?? []) {
      const mine = certificate.tasks.find((/** @type {Json} */ each) => each.task === row.task);
      if (!mine || one === version) continue;
      if (certificate.exact && learned(row.task, one) !== learned(row.task, version)) continue; // another of its name
      found.get(row.task)?.[mine.logits_sha256 === row.logits_sha256 ? "agrees" : "differs"].push(one);
    }
  }
  return { rows: [...found.values()], same: JSON.stringify(fresh) === JSON.stringify(certificate) };
}

/** @param {{ model: any, version: number, certificate: Json }} given */
function Certificate({ model, version, certificate }) {
  const [checked, setChecked] = useState(/** @type {{ rows: Compared[], same: boolean } | null} */ (null));
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const check = async () => {
    setBusy(true);
    setProblem(null);
    try {
      const found = await compare(model.name, version, certificate);
      setChecked(found);
      announce(agrees(found) ? "All digests agree" : "Digests differ");
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(certificate, null, 2)], { type: "application/json" }));
    link.download = `${model.name}-version-${version}-certificate.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  return html`
    <${Section} title=${`Certificate of version ${version}`}
      note=${`Digests of what each task answers to ${certificate.probes.images} fixed probe images. Where two versions have the same digest, they answer with the same bytes.`}
      acts=${html`<button type="button" onClick=${save}>Save as JSON</button>
        <button type="button" class="primary" disabled=${busy} onClick=${check}>${busy ? "Checking…" : "Check it now"}
          </button>`}>
      <${Trouble} problem=${problem} />
      ${
        checked &&
        html`<p class=${`notice ${agrees(checked) ? "good" : "bad"}`} role="status">${
          agrees(checked)
            ? "This version was loaded and answers as certified. Its certificate was read again from the storage, and agrees with the certificates of all other versions."
            : certificate.exact
              ? "Digests differ from those of other versions: see below."
              : "Digests differ from those of other versions, as this method allows."
        }</p>`
      }
      <table class="wide">
        <caption class="hidden">Digests</caption>
        <thead><tr><th scope="col">Task</th><th scope="col">Digest of its answers</th><th scope="col">
          ${checked ? "Same in versions" : "Last computed for"}</th>
            <th scope="col" class="figure">Balanced accuracy</th></tr></thead>
        <tbody>
          ${certificate.tasks.map((/** @type {Json} */ row) => {
            const one = checked?.rows.find((each) => each.task === row.task);
            return html`
              <tr><th scope="row">${row.task}</th><td data-name="Digest">
                <${Digest} of=${row.logits_sha256} length=${20} /></td>
                <td data-name=${checked ? "Same in versions" : "Last computed for"}>${one ? html`${spans(one.agrees)}
                  ${one.differs.length > 0 && html` <${Mark} kind="bad">differs in ${spans(one.differs)}
                    <//>`}` : row.checked_in !== undefined ? `version ${row.checked_in}` : "–"}</td>
                <td class="figure" data-name="Balanced accuracy">
                  ${percent(certificate.classes?.[row.task]?.balanced_accuracy)}</td></tr>
            `;
          })}
        </tbody>
      </table>
    <//>
    ${
      certificate.signature &&
      html`<${Section} title="Who signed it" note="engram verify checks the signature with the public key, on any machine.">
        <${Facts} of=${[
          ["Algorithm", certificate.signature.algorithm],
          ["Key", html`<${Digest} of=${certificate.signature.key_id} length=${20} />`],
        ]} />
      <//>`
    }
    <${Section} title="Where it holds" note="Certificates are compared only where these agree.">
      <${Facts}
        of=${[["Promise", certificate.exact ? "old answers never change" : "forgetting is measured"], ...Object.entries(certificate.environment).map(([name, value]) => [name.replaceAll("_", " "), String(value)])]} />
    <//>
  `;
}

/** @param {{ rows: Compared[], same: boolean }} checked */
function agrees(checked) {
  return checked.same && checked.rows.every((row) => row.differs.length === 0);
}

/** Numbers, those in a row as a span. @param {number[]} numbers */
function spans(numbers) {
  const sorted = [...numbers].sort((one, other) => one - other);
  /** @type {[number, number][]} */
  const found = [];
  for (const one of sorted) {
    const last = found[found.length - 1];
    if (last && one === last[1] + 1) last[1] = one;
    else found.push([one, one]);
  }
  return (
    found.map(([from, until]) => (from === until ? number(from) : `${from}–${until}`)).join(", ") || "this one only"
  );
}
