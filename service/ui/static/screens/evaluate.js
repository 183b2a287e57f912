/** Evaluate: one or two versions on labelled images, before one of them answers. */

import { html, useCallback, useState } from "../vendor/preact.js";
import { DropZone } from "../parts/drop.js";
import { Meter, Section, Trouble } from "../parts/view.js";
import { entriesOf, isArchive, isSeen, pack } from "../data/archive.js";
import { labelled } from "../data/collection.js";
import { send } from "../data/sending.js";
import { all, path } from "../service.js";
import { announce, useLoaded } from "../state.js";
import { go } from "../routes.js";
import { counted, percent, size } from "../words.js";

/** @typedef {import("../service.js").Json} Json */

/** What is in an archive, in words. @param {Blob} file @param {string} name */
async function contents(file, name) {
  try {
    if (isSeen(file, name)) {
      const { images, labels } = labelled(await entriesOf(file, name));
      return `${counted(images.length, "image")} of ${counted(labels.size, "class", "classes")}`;
    }
  } catch {
    // The service reads more kinds of them, and says best what is wrong.
  }
  return "the service looks into it once it is sent";
}

/** @param {{ model: any }} given */
export function Evaluate({ model }) {
  const versions = useLoaded(
    (signal) => all(`v1/models/${path(model.name)}/versions`, "versions", { signal }),
    [model.name, model.version],
  );
  const [given, setGiven] = useState(
    /** @type {{ blob: () => Promise<Blob>, name: string, what: string } | null} */ (null),
  );
  const [chosen, setChosen] = useState("");
  const [compared, setCompared] = useState(/** @type {string | null} */ (null));
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const [share, setShare] = useState(/** @type {number | null} */ (null));
  const [over] = useState(() => new AbortController());
  const take = useCallback(async (/** @type {import("../data/dropped.js").GivenFile[]} */ files) => {
    const [first] = files;
    if (files.length === 1 && isArchive(first.path)) {
      const what = `${first.path}, ${size(first.file.size)}: ${await contents(first.file, first.path)}`;
      setGiven({ blob: () => Promise.resolve(first.file), name: first.path, what });
      announce(what);
      return;
    }
    const { images, labels } = labelled(
      files.map(({ path: where, file }) => ({ path: where, size: file.size, read: () => Promise.resolve(file) })),
    );
    const what = `${counted(images.length, "image")} of ${counted(labels.size, "class", "classes")}`;
    setGiven({ blob: () => pack(images, setShare, over.signal), name: "images.zip", what });
    announce(what);
  }, []);
  const able = (versions.data ?? []).filter((/** @type {Json} */ version) => version.tasks.length > 0);
  // What answers, if it can be evaluated: where only a candidate has learned, that is it.
  const first = able.find((/** @type {Json} */ version) => version.version === model.version) ?? able[0];
  const one = chosen || String(first?.version ?? model.version);
  // What waits is mostly what somebody wants to know of: it is compared unless the user says otherwise.
  const waiting = able.find((/** @type {Json} */ version) => version.status === "candidate");
  const other = compared ?? (waiting && String(waiting.version) !== one ? String(waiting.version) : "");
  const submit = async () => {
    if (!given) return;
    setProblem(null);
    setShare(0);
    try {
      const form = new FormData();
      form.append("versions", other ? `${one},${other}` : one);
      form.append("data", await given.blob(), given.name);
      const { job } = await send(`v1/models/${path(model.name)}/evaluate`, form, setShare, over.signal);
      go("jobs", job.id);
    } catch (error) {
      setProblem(error);
      setShare(null);
    }
  };
  const choices = able.map(
    (/** @type {Json} */ version) =>
      html`<option value=${String(version.version)}>${version.version}
        ${version.version === model.version ? " (answers)" : version.status === "candidate" ? " (candidate)" : ""}
          </option>`,
  );
  return html`
    <${DropZone} take=${take} title="Drop labelled images" folders=${true} accept=".zip,.tar,.tgz,.gz,.xz,.bz2">
      A folder or an archive in which each class has a folder of images. Nothing is learned from them; they are deleted when it is done.
    <//>
    <${Section} title="What is asked" note="With two versions, every image is listed that they answer differently.">
      <div class="fields">
        <label class="field"><span>Version</span>
          <select name="one" value=${one} onChange=${(/** @type {any} */ event) => setChosen(event.target.value)}>
            ${choices}</select></label>
        <label class="field"><span>Compared with</span>
          <select name="other" value=${other} onChange=${(/** @type {any} */ event) => setCompared(event.target.value)}>
            <option value="">no other</option>${choices}</select></label>
      </div>
      <p>${given ? given.what : html`<span class="note">No images yet.</span>`}</p>
      ${one === other && html`<p class="note" role="status">A version answers as it does itself: compare it with another.</p>`}
      <${Trouble} problem=${problem ?? versions.error} />
      ${
        share === null
          ? html`<div class="acts end"><button type="button" class="primary" disabled=${given === null || one === other}
            onClick=${submit}>Evaluate</button></div>`
          : html`<p class="sending" role="status">
            <strong>Sending</strong> <${Meter} value=${share} /> ${percent(share, 0)}</p>`
      }
    <//>
  `;
}
