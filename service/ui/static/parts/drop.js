/** A place to drop files on, to paste them, and to choose them by a button. */

import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { filesOf } from "../data/dropped.js";

/** @typedef {import("../data/dropped.js").GivenFile} GivenFile */

/**
 * @param {object} given
 * @param {(files: GivenFile[]) => void} given.take
 * @param {string} given.title
 * @param {any} given.children
 * @param {boolean} [given.folders] whether whole folders are meant
 * @param {string} [given.accept]
 * @param {boolean} [given.camera]
 * @param {boolean} [given.paste]
 */
export function DropZone({ take, title, children, folders = false, accept, camera = false, paste = false }) {
  const [over, setOver] = useState(false);
  const files = useRef(/** @type {HTMLInputElement | null} */ (null));
  const folder = useRef(/** @type {HTMLInputElement | null} */ (null));
  const photograph = useRef(/** @type {HTMLInputElement | null} */ (null));
  const chosen = (/** @type {any} */ event) => {
    const found = [...event.target.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
    event.target.value = "";
    if (found.length > 0) take(found);
  };
  useEffect(() => {
    if (!paste) return undefined;
    const pasted = (/** @type {ClipboardEvent} */ event) => {
      const found = [...(event.clipboardData?.files ?? [])].map((file) => ({ path: file.name, file }));
      if (found.length > 0) take(found);
    };
    addEventListener("paste", pasted);
    return () => removeEventListener("paste", pasted);
  }, [paste, take]);
  const drop = async (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    setOver(false);
    if (event.dataTransfer) take(await filesOf(event.dataTransfer));
  };
  return html`
    <div class=${`drop ${over ? "over" : ""}`} role="group" aria-label=${title}
      onDragOver=${(/** @type {DragEvent} */ event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave=${() => setOver(false)} onDrop=${drop}>
      <p class="drop-title">${title}</p>
      <p class="note">${children}</p>
      <div class="acts">
        ${folders && html`<button type="button" class="primary"
          onClick=${() => folder.current?.click()}>Choose a folder</button>`}
        <button type="button" class=${folders ? "" : "primary"} onClick=${() => files.current?.click()}>
          ${folders ? "Choose an archive" : "Choose images"}</button>
        ${camera && html`<button type="button" class="only-touch"
          onClick=${() => photograph.current?.click()}>Take a photograph</button>`}
      </div>
      <input ref=${files} class="hidden" type="file" multiple=${!folders} accept=${accept} tabindex="-1"
        aria-hidden="true" data-for="files" onChange=${chosen} />
      ${folders && html`<input ref=${folder} class="hidden" type="file" webkitdirectory tabindex="-1" aria-hidden="true"
        data-for="folder" onChange=${chosen} />`}
      ${camera && html`<input ref=${photograph} class="hidden" type="file" accept="image/*" capture="environment"
        tabindex="-1" aria-hidden="true" onChange=${chosen} />`}
    </div>
  `;
}
