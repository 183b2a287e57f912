/** Calls of the service's public interface: addresses, keys, problems, and whether the service answers at all. */

import { revived, State } from "./state.js";

/** The service: it lies one folder above the page, below whatever path a proxy serves both. */
export const ROOT = new URL("..", document.baseURI);

const KEY = "engram-key";
const AWAY = new Set([502, 503, 504]);
const AWAY_PAUSES = [500, 1000, 2000, 3000, 5000];

/** Whether the service answers. @type {State<boolean>} */
export const reachable = new State(true);

/** What waits for a key: what is to be said, and who has to be told of it. @type {State<KeyRequest | null>} */
export const keyRequest = new State(/** @type {KeyRequest | null} */ (null));

/** Whether there is a key. @type {State<boolean>} */
export const hasKey = new State(key() !== null);

/** How often the key was changed. @type {State<number>} */
export const keyChanges = new State(0);

/** @typedef {{ why: string, resolve: (given: boolean) => void }} KeyRequest */
/** @typedef {{ loc: string[], message: string }} FieldError */
/** @typedef {Record<string, any>} Json */
/**
 * @typedef {object} Call
 * @property {string} [method]
 * @property {Record<string, string | number | boolean | undefined>} [query]
 * @property {unknown} [json] sent as JSON
 * @property {BodyInit} [body] sent as it is
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 */

/** A refusal of the service, or that it cannot be reached (status 0). */
export class Problem extends Error {
  /** @param {number} status @param {Json} about */
  constructor(status, about) {
    super(about.detail ?? "The service gave no reason.");
    this.name = "Problem";
    this.status = status;
    /** @type {string} */
    this.code = about.code ?? `http_${status}`;
    /** @type {string | null} */
    this.requestId = about.request_id ?? null;
    /** @type {FieldError[]} */
    this.errors = about.errors ?? [];
    /** Seconds after which to ask again. @type {number | null} */
    this.retryAfter = about.retryAfter ?? null;
  }
}

/** The key of this tab. @returns {string | null} */
export function key() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** Keep a key for this tab, or forget it. @param {string | null} given */
export function keepKey(given) {
  if (given === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, given);
  hasKey.set(given !== null);
  keyChanges.set(keyChanges.value + 1);
}

/** Whose key this tab has, and what it may; null where that cannot be had. Nobody is asked for a key for that. @returns {Promise<any>} */
export async function ownKey() {
  try {
    const call = { headers: headers(), cache: /** @type {RequestCache} */ ("no-store") };
    const response = await fetch(address("v1/keys/self"), { ...call, credentials: "omit" });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/** The address of a path such as `v1/models`. @param {string} path @param {Call["query"]} [query] */
export function address(path, query = {}) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== "") url.searchParams.set(name, String(value));
  }
  return url;
}

/** A path of parts, each encoded. @param {string[]} parts */
export function path(...parts) {
  return parts.map(encodeURIComponent).join("/");
}

/** The headers of a call with the key. @param {Record<string, string>} [others] */
export function headers(others = {}) {
  const given = key();
  return given === null ? others : { ...others, Authorization: `Bearer ${given}` };
}

/**
 * The response to a call. Where a key is missing it is asked for, and the call made again.
 *
 * @param {string} where
 * @param {Call} [call]
 * @returns {Promise<Response>}
 * @throws {Problem}
 */
export async function ask(where, call = {}) {
  const sent = call.json === undefined ? call.body : JSON.stringify(call.json);
  const about = call.json === undefined ? call.headers : { "Content-Type": "application/json", ...call.headers };
  for (;;) {
    const used = key();
    const response = await reach(address(where, call.query), {
      method: call.method ?? "GET",
      body: sent,
      headers: headers(about),
      signal: call.signal,
      cache: "no-store",
      credentials: "omit",
    });
    if (response.ok) return response;
    const refused = await problemOf(response);
    if (response.status !== 401 || !(await another(used, refused))) throw refused;
  }
}

/** The JSON that a call is answered with. @param {string} where @param {Call} [call] @returns {Promise<any>} */
export async function json(where, call) {
  return (await ask(where, call)).json();
}

/** All entries of a paged list. @param {string} where @param {string} field @param {Call} [call] @param {number} [most] */
export async function all(where, field, call = {}, most = 2000) {
  /** @type {any[]} */
  const found = [];
  let after;
  do {
    const page = await json(where, { ...call, query: { limit: 500, ...call.query, after } });
    found.push(...page[field]);
    after = page.next ?? undefined;
  } while (after !== undefined && found.length < most);
  return found;
}

/** The problem in a response that is no success. @param {Response} response */
export async function problemOf(response) {
  const wait = Number(response.headers.get("retry-after"));
  const id = response.headers.get("x-request-id");
  return problemFrom(response.status, await response.text(), id, wait > 0 ? wait : null);
}

/** @param {number} status @param {string} text @param {string | null} id @param {number | null} retryAfter */
export function problemFrom(status, text, id, retryAfter) {
  /** @type {Json} */
  let about = { detail: `What answers here is not Engram, or something before it (status ${status}).` };
  try {
    const read = JSON.parse(text);
    // Refusals below `v2` say in `error` what is wrong.
    if (read !== null && typeof read === "object") about = { detail: read.error, ...read };
  } catch {
    // Not of the service: a proxy's page, perhaps.
  }
  return new Problem(status, { request_id: id, retryAfter, ...about });
}

/** The problem of a service that does not answer. */
export function unreachable() {
  watch();
  return new Problem(0, {
    code: "unreachable",
    detail: "The service does not answer. Nothing you have entered is lost; the page goes on once it is back.",
  });
}

/** @param {URL} url @param {RequestInit} request */
async function reach(url, request) {
  try {
    const response = await fetch(url, request);
    // A proxy's own refusal says that the service is away; one of the service's is a problem document.
    if (AWAY.has(response.status) && !(response.headers.get("content-type") ?? "").includes("json"))
      throw unreachable();
    returned();
    return response;
  } catch (error) {
    if (request.signal?.aborted || error instanceof Problem) throw error;
    throw unreachable();
  }
}

/** Whether the question for a key was left unanswered: it is not asked again until the user does. */
let declined = false;

/** Ask for a key, once for all that wait for it; whether to try again. @param {string | null} used @param {Problem} why */
function another(used, why) {
  if (key() !== used) return Promise.resolve(true); // it was given meanwhile
  if (declined && used === null) return Promise.resolve(false);
  const waiting = keyRequest.value;
  const said = used === null ? "This service asks for an API key." : why.message;
  return /** @type {Promise<boolean>} */ (
    new Promise((resolve) => {
      keyRequest.set({
        why: said,
        resolve: (given) => {
          declined = !given;
          if (!given && used !== null && key() === used) keepKey(null); // it is of no use
          waiting?.resolve(given);
          resolve(given);
        },
      });
    })
  );
}

/** Note that the service answers. */
function returned() {
  if (reachable.value) return;
  reachable.set(true);
  revived.set(revived.value + 1);
}

let watching = false;

/** Ask every few seconds whether the service is back. */
async function watch() {
  reachable.set(false);
  if (watching) return;
  watching = true;
  for (let turn = 0; !reachable.value; turn += 1) {
    await new Promise((resolve) => setTimeout(resolve, AWAY_PAUSES[Math.min(turn, AWAY_PAUSES.length - 1)]));
    try {
      if ((await fetch(address("livez"), { cache: "no-store" })).ok) returned();
    } catch {
      // Not yet.
    }
  }
  watching = false;
}
