/** Small parts that screens are made of: titles, notices, problems, empty states, meters. */

import { html, useEffect, useRef } from "../vendor/preact.js";
import { clock, ago, percent } from "../words.js";

/** Heading of a screen, which is given the focus when the screen is shown. @param {{ eyebrow?: any, name: string, children?: any }} given */
export function Title({ eyebrow, name, children }) {
  const heading = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    document.title = `${name} · Engram`;
    heading.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [name]);
  return html`
    <header class="title">
      ${eyebrow && html`<p class="eyebrow">${eyebrow}</p>`}
      <div class="title-line">
        <h1 ref=${heading} tabindex="-1">${name}</h1>
        <div class="title-acts">${children}</div>
      </div>
    </header>
  `;
}

/** A part of a screen with a heading of its own. @param {{ title: string, note?: any, acts?: any, children: any, [other: string]: any }} given */
export function Section({ title, note, acts, children, ...rest }) {
  return html`
    <section class="card" ...${rest}>
      <div class="card-head"><h2>${title}</h2>${acts && html`<div class="card-acts">${acts}</div>`}</div>
      ${note && html`<p class="note">${note}</p>`}
      ${children}
    </section>
  `;
}

/** What to do about a problem, by its code. @type {Record<string, string>} */
const ADVICE = {
  forbidden: "Use a key with the scope that is named.",
  unauthorized: "Give one by “Use a key” above.",
  overloaded: "Wait a moment, then try again.",
  rate_limited: "Wait a moment, then try again.",
  redis_unavailable: "Nothing is lost. Try again once Redis is back.",
  store_unavailable: "Nothing is lost. Try again once the storage is back.",
  unknown_model: "It may have been deleted. Go back to the list of models.",
  task_exists: "Choose another name.",
  model_exists: "Choose another name.",
  capacity_exhausted: "Give the model more room on its overview.",
  wrong_channels: "This model takes grey images only.",
  request_too_large: "Send fewer or smaller images.",
};

/** A problem: what is wrong, what to do, its code and the request's id. @param {{ problem: any, retry?: () => void }} given */
export function Trouble({ problem, retry }) {
  if (!problem) return null;
  const advice = ADVICE[problem.code];
  const code = problem.code ?? "page_error";
  return html`
    <div class="trouble" role="alert">
      <p><strong>${problem.message || "Something went wrong."}</strong>${advice && html` ${advice}`}</p>
      ${problem.errors?.length > 1 && html`<ul>
        ${problem.errors.map((/** @type {import("../service.js").FieldError} */ one) => html`<li>
          ${one.loc.slice(1).join(".")}: ${one.message}</li>`)}</ul>`}
      <p class="trouble-foot">
        <code>${code}</code>${problem.requestId && html`<span>request <code>${problem.requestId}</code></span>`}
        ${retry && html`<button type="button" class="quiet" onClick=${retry}>Try again</button>`}
      </p>
    </div>
  `;
}

/** What is there, while it is loaded, when it failed, and when it is there. @param {{ of: any, children: any }} given */
export function Loaded({ of, children }) {
  if (of.data === null && of.error) return html`<${Trouble} problem=${of.error} retry=${of.reload} />`;
  if (of.data === null) return html`<p class="loading" role="status">Loading…</p>`;
  return html`${of.error && html`<${Trouble} problem=${of.error} retry=${of.reload} />`}${children(of.data)}`;
}

/** What there is nothing of yet, and the next step. @param {{ title: string, children: any }} given */
export function Empty({ title, children }) {
  return html`<div class="empty"><h2>${title}</h2>${children}</div>`;
}

/** A small mark with a word: its kind is `good`, `warn`, `bad`, `accent` or none. @param {{ kind?: string, children: any }} given */
export function Mark({ kind, children }) {
  return html`<span class=${`mark ${kind ?? ""}`}>${children}</span>`;
}

/**
 * A share from 0 to 1 as a bar; the number stands beside it in text.
 *
 * @param {{ value: number | null | undefined, low?: number, high?: number, kind?: string }} given
 */
export function Meter({ value, low, high, kind }) {
  const scale = (/** @type {number} */ share) => `${Math.max(0, Math.min(1, share)) * 100}%`;
  return html`
    <span class=${`meter ${kind ?? ""}`} aria-hidden="true">
      <span class="meter-fill" style=${{ width: scale(value ?? 0) }}></span>
      ${low !== undefined && html`<span class="meter-range"
        style=${{ left: scale(low), width: scale((high ?? low) - low) }}></span>`}
    </span>
  `;
}

/**
 * A row of a list of shares: a name, a bar, the number.
 *
 * @param {{ name: string, value: number | null | undefined, low?: number, high?: number, kind?: string, children?: any }} given
 */
export function ShareRow({ name, value, low, high, kind, children }) {
  return html`
    <li class="share">
      <span class="share-name">${name}</span>
      <${Meter} value=${value} low=${low} high=${high} kind=${kind} />
      <span class="share-value">${percent(value)}</span>
      ${children && html`<span class="share-more">${children}</span>`}
    </li>
  `;
}

/** A moment, as how long ago it was, with the clock's time to those who point at it. @param {{ at: string | null }} given */
export function Moment({ at }) {
  return at ? html`<time datetime=${at} title=${clock(at)}>${ago(at)}</time>` : null;
}

/** A digest, cut short, with the whole of it to those who point at it. @param {{ of: any, length?: number }} given */
export function Digest({ of, length = 12 }) {
  return of ? html`<code class="digest" title=${of}>${of.slice(0, length)}</code>` : "–";
}

/** Names and what they are. @param {{ of: any }} given */
export function Facts({ of }) {
  return html`
    <dl class="facts">
      ${of.filter((/** @type {any} */ one) => one).map((/** @type {[any, any]} */ [name, value]) => html`<div><dt>
        ${name}</dt><dd>${value}</dd></div>`)}
    </dl>
  `;
}
