/** Teach a task: a folder or an archive, looked at before anything is sent; how it is learned, in words. */

import { html, useCallback, useEffect, useRef, useState } from "../vendor/preact.js";
import { DropZone } from "../parts/drop.js";
import { Meter, Section, Trouble } from "../parts/view.js";
import { entriesOf, isArchive, isSeen, MOST_SEEN, pack } from "../data/archive.js";
import { collect, imagesOf, packable } from "../data/collection.js";
import { countFindings, imageFindings, look } from "../data/inspection.js";
import { send } from "../data/sending.js";
import { path } from "../service.js";
import { announce } from "../state.js";
import { go } from "../routes.js";
import { counted, number, percent, size } from "../words.js";
import { leastHeldOut, MEASURABLE, TeachOptions, optionsOf, PLAIN } from "./teach_options.js";

/** @typedef {import("../data/collection.js").Collection} Collection */
/** @typedef {import("../data/inspection.js").Finding} Finding */
/** @typedef {{ archive: Blob | null, archiveName: string, collection: Collection | null, unseen: string }} Given what is to be learned from; where the page has not looked into it, why */

const THUMBNAILS = 8;
const UNSEEN = `This page looks into folders, and into zip, tar and tar.gz files of up to ${size(MOST_SEEN)}.`;

/** @param {{ model: any }} given */
export function Teach({ model }) {
  const [given, setGiven] = useState(/** @type {Given | null} */ (null));
  const [name, setName] = useState("");
  const [options, setOptions] = useState(PLAIN);
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const [sending, setSending] = useState(/** @type {{ phase: string, share: number } | null} */ (null));
  const over = useRef(new AbortController());
  useEffect(() => () => over.current.abort(), []);

  const take = useCallback(async (/** @type {import("../data/dropped.js").GivenFile[]} */ files) => {
    setProblem(null);
    try {
      const found = await takenFrom(files);
      setGiven(found);
      setName((before) => before || found.name);
      announce(
        found.collection
          ? `${counted(found.collection.classes.length, "class", "classes")} found`
          : "An archive was taken, which this page has not looked into",
      );
    } catch (error) {
      setProblem({
        code: "not_readable",
        message: `This could not be looked into: ${error instanceof Error ? error.message : error}.`,
      });
    }
  }, []);
  const findings = useFindings(given?.collection ?? null, model.input, model.tasks.length === 0);
  const taken = model.tasks.some((/** @type {any} */ task) => task.name === name);
  const stopped = findings.list.some((one) => one.kind === "bad");

  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (given === null) return;
    over.current = new AbortController();
    const { signal } = over.current;
    setProblem(null);
    try {
      const whole = /** @type {Collection} */ (given.collection);
      const data =
        given.archive ?? (await pack(packable(whole), (share) => setSending({ phase: "Packing", share }), signal));
      const form = new FormData();
      form.append("name", name.trim());
      form.append("options", JSON.stringify(optionsOf(options)));
      form.append("data", data, given.archiveName);
      setSending({ phase: "Sending", share: 0 });
      const { job } = await send(
        `v1/models/${path(model.name)}/tasks`,
        form,
        (share) => setSending({ phase: "Sending", share }),
        signal,
      );
      go("jobs", job.id);
    } catch (error) {
      if (!signal.aborted) setProblem(error);
      setSending(null);
    }
  };
  if (given === null) {
    return html`
      <${DropZone} take=${take} title="Drop a folder, or an archive" folders=${true}
        accept=".zip,.tar,.tgz,.gz,.xz,.bz2">
        In it each class has a folder of images: <code>screws/good/1.png</code>, <code>screws/broken/2.png</code>. Nothing is sent before you have seen what is in it.
      <//>
      <${Trouble} problem=${problem} />
    `;
  }
  return html`
    <form onSubmit=${submit}>
      <${Contents} given=${given} findings=${findings} />
      <${Section} title="The task">
        <label class="field"><span>Name</span>
          <input name="task" required maxlength="100" autocomplete="off" value=${name}
            onInput=${(/** @type {any} */ event) => setName(event.target.value)} />
          ${taken && html`<small class="bad">${model.name} has a task of this name already.</small>`}
        </label>
        <${TeachOptions} options=${options} set=${setOptions} collection=${given.collection} />
      <//>
      <${Trouble} problem=${problem} />
      ${
        sending
          ? html`<div class="card sending" role="status"><strong>${sending.phase}
            </strong> <${Meter} value=${sending.share} /> <span>${percent(sending.share, 0)}</span>
            <button type="button" class="quiet" onClick=${() => {
              over.current.abort();
              setSending(null);
            }}>Stop</button></div>`
          : html`<div class="acts">
            <button type="button" onClick=${() => {
              setGiven(null);
              setProblem(null);
            }}>Take something else</button>
            <button type="submit" class="primary" disabled=${stopped || taken || !name.trim()}>Learn it</button>
          </div>`
      }
    </form>
  `;
}

/** What is to be learned from, out of what was dropped or chosen. @param {import("../data/dropped.js").GivenFile[]} files */
async function takenFrom(files) {
  const [first] = files;
  if (files.length === 1 && isArchive(first.path)) {
    const name = taskName(first.path.replace(/(\.tar)?\.\w+$/i, ""));
    const given = { archive: first.file, archiveName: first.path, name };
    if (!isSeen(first.file, first.path)) return { ...given, collection: null, unseen: UNSEEN };
    try {
      return { ...given, collection: collect(await entriesOf(first.file, first.path)), unseen: "" };
    } catch (error) {
      // The service reads more kinds of them, and says best what is wrong.
      const why = error instanceof Error ? error.message : error;
      return { ...given, collection: null, unseen: `This page could not look into it: ${why}.` };
    }
  }
  const entries = files.map(({ path: where, file }) => ({
    path: where,
    size: file.size,
    read: () => Promise.resolve(file),
  }));
  const tops = new Set(files.map(({ path: where }) => where.split("/")[0]));
  const deep = files.some(({ path: where }) => where.split("/").length > 2);
  return {
    archive: null,
    archiveName: "data.zip",
    collection: collect(entries, true),
    unseen: "",
    name: tops.size === 1 && deep ? taskName([...tops][0]) : "",
  };
}

/** @param {string} name */
function taskName(name) {
  return name
    .normalize("NFC")
    .replace(/[\s/]+/g, "-")
    .slice(0, 100);
}

/**
 * What the counts tell at once, and the images as they are looked at.
 *
 * @param {Collection | null} collection @param {any} input @param {boolean} first
 */
function useFindings(collection, input, first) {
  const [found, setFound] = useState(
    /** @type {{ list: Finding[], seen: number, of: number }} */ ({ list: [], seen: 0, of: 0 }),
  );
  useEffect(() => {
    if (collection === null) {
      setFound({ list: [], seen: 0, of: 0 });
      return undefined;
    }
    const over = new AbortController();
    const counts = countFindings(collection, first);
    setFound({ list: counts, seen: 0, of: imagesOf(collection).length });
    look(collection, (seen, of) => over.signal.aborted || setFound({ list: counts, seen, of }), over.signal).then(
      (seen) => {
        if (over.signal.aborted) return;
        const list = [...counts, ...imageFindings(seen, input)];
        setFound({ list, seen: seen.length, of: seen.length });
        announce(
          list.length === 0
            ? "All images looked at, nothing to be wary of"
            : `${counted(list.length, "finding")}: ${list[0].text}`,
        );
      },
    );
    return () => over.abort();
  }, [collection]);
  return found;
}

/** @param {{ given: any, findings: { list: Finding[], seen: number, of: number }}} given */
function Contents({ given, findings }) {
  const { collection } = given;
  if (collection === null) {
    return html`
      <${Section} title=${given.archiveName}>
        <p><strong>${size(given.archive.size)}, and nobody has looked into it yet.</strong> ${given.unseen}</p>
        <p>Once it is sent, the service counts its classes and images before anything is learned, and refuses it with a reason where something is wrong. What it found is in the job's report.</p>
      <//>
    `;
  }
  const images = collection.classes.reduce(
    (/** @type {number} */ sum, /** @type {any} */ one) => sum + one.images.length + one.validation.length,
    0,
  );
  const measured = leastHeldOut(collection);
  const most = Math.max(...collection.classes.map((/** @type {any} */ one) => one.images.length), 1);
  return html`
    <${Section}
      title=${`${counted(collection.classes.length, "class", "classes")}, ${counted(images, "image")}, ${size(collection.bytes)}`}>
      <${Findings} findings=${findings} />
      ${measured !== null && measured < MEASURABLE && html`<p class="note">About ${counted(measured, "image")} of a class ${measured === 1 ? "is" : "are"} held out to measure how well it does. That tells little of it; from ${MEASURABLE} on it tells more.</p>`}
      <ul class="class-list">
        ${collection.classes.map(
          (/** @type {any} */ one) => html`
          <li key=${one.name}>
            <div class="class-line"><strong>${one.name}</strong> <${Meter} value=${one.images.length / most} />
              <span>${number(one.images.length)}
                ${one.validation.length > 0 && ` + ${number(one.validation.length)} to judge by`}</span></div>
            <${Thumbnails} of=${one} />
          </li>
        `,
        )}
      </ul>
    <//>
  `;
}

/** @param {{ findings: { list: Finding[], seen: number, of: number } }} given */
function Findings({ findings }) {
  const looking = findings.seen < findings.of;
  return html`
    ${looking && html`<p class="looking" role="status">
      <${Meter}
        value=${findings.seen / findings.of} /> Looking at the images: ${number(findings.seen)} of ${number(findings.of)}
          </p>`}
    ${findings.list.length > 0 && html`<ul class="findings" aria-label="Findings">
      ${findings.list.map((/** @type {Finding} */ one) => html`<li class=${one.kind}>${one.text}</li>`)}</ul>`}
    ${!looking && findings.list.length === 0 && html`<ul class="findings">
      <li class="good">Nothing to be wary of: no doubles, no blank images, balanced classes.</li></ul>`}
  `;
}

/** @param {{ of: any }} given */
function Thumbnails({ of }) {
  const [urls, setUrls] = useState(/** @type {string[]} */ ([]));
  useEffect(() => {
    let over = false;
    /** @type {string[]} */
    const made = [];
    const step = Math.max(1, Math.floor(of.images.length / THUMBNAILS));
    const chosen = of.images
      .filter((/** @type {any} */ _, /** @type {number} */ at) => at % step === 0)
      .slice(0, THUMBNAILS);
    Promise.all(chosen.map((/** @type {any} */ entry) => entry.read())).then((blobs) => {
      if (over) return;
      made.push(...blobs.map((blob) => URL.createObjectURL(blob)));
      setUrls([...made]);
    });
    return () => {
      over = true;
      made.forEach((url) => URL.revokeObjectURL(url));
    };
  }, [of]);
  return html`<div class="thumbnails">${urls.map((url) => html`<img src=${url} alt="" loading="lazy" />`)}</div>`;
}
