/** Dialogs: a question before something is done, and the one for a key. */

import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { Trouble } from "./view.js";
import { keepKey, keyRequest } from "../service.js";
import { useValue } from "../state.js";

/** A dialog over the page; the browser keeps the focus in it and gives it back. @param {{ title: string, close: () => void, children: any }} given */
export function Dialog({ title, close, children }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const shown = dialog.current;
    shown?.showModal();
    return () => shown?.close(); // so that the focus goes back to where it was
  }, []);
  return html`
    <dialog ref=${dialog} onCancel=${close} onClose=${close} aria-labelledby="dialog-title">
      <h2 id="dialog-title">${title}</h2>
      ${children}
    </dialog>
  `;
}

/**
 * A button that asks before it acts, shows that it is at it, and what went wrong.
 *
 * @param {{ label: string, title: string, question: any, act: () => Promise<any>, kind?: string, done?: (result?: any) => void }} given
 */
export function Asking({ label, title, question, act, kind, done }) {
  const [open, setOpen] = useState(false);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const agree = async () => {
    setBusy(true);
    setProblem(null);
    try {
      const result = await act();
      setOpen(false);
      done?.(result);
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  return html`
    <button type="button" class=${kind ?? ""} onClick=${() => {
      setProblem(null);
      setOpen(true);
    }}>${label}</button>
    ${
      open &&
      html`
      <${Dialog} title=${title} close=${() => setOpen(false)}>
        <p>${question}</p>
        <${Trouble} problem=${problem} />
        <div class="acts">
          <button type="button" class="quiet" onClick=${() => setOpen(false)}>Leave it</button>
          <button type="button" class=${kind === "danger" ? "danger" : "primary"} disabled=${busy} onClick=${agree}>
            ${busy ? "One moment…" : label}
          </button>
        </div>
      <//>
    `
    }
  `;
}

/** The question for a key, whenever the service asks for one. */
export function KeyDialog() {
  const request = useValue(keyRequest);
  const [given, setGiven] = useState("");
  if (request === null) return null;
  const end = (/** @type {boolean} */ agreed) => {
    if (keyRequest.value !== request) return;
    if (agreed) keepKey(given.trim());
    setGiven("");
    keyRequest.set(null);
    request.resolve(agreed);
  };
  return html`
    <${Dialog} title="API key" close=${() => end(false)}>
      <form onSubmit=${(/** @type {Event} */ event) => {
        event.preventDefault();
        end(true);
      }}>
        <p>${request.why}</p>
        <label class="field">
          <span>Key</span>
          <input type="password" name="key" autocomplete="off" spellcheck=${false} required autofocus
            value=${given} onInput=${(/** @type {any} */ event) => setGiven(event.target.value)} />
          <small>An administrator makes one, under Keys on this page or by <code>engram keys create</code>. It is kept for this tab only.</small>
        </label>
        <div class="acts">
          <button type="button" class="quiet" onClick=${() => end(false)}>Not now</button>
          <button type="submit" class="primary">Use this key</button>
        </div>
      </form>
    <//>
  `;
}
