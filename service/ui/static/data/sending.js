/** Uploads that tell how far they are, and are made again where the service was away. */

import { ask, headers, key, address, problemFrom, Problem, reachable, unreachable } from "../service.js";

/** @typedef {import("../service.js").Json} Json */

/** A key under which a request is done once, however often it is sent. */
export function idempotencyKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16).padStart(8, "0")).join("");
}

/**
 * Send a form and give the JSON of its answer. While the service is away it waits, and sends it again under its key.
 *
 * @param {string} where
 * @param {FormData} form
 * @param {(share: number) => void} tell
 * @param {AbortSignal} signal
 * @returns {Promise<Json>}
 * @throws {Problem}
 */
export async function send(where, form, tell, signal) {
  const once = idempotencyKey();
  for (;;) {
    const used = key();
    try {
      return await sendOnce(where, form, tell, signal, once);
    } catch (problem) {
      if (!(problem instanceof Problem) || signal.aborted) throw problem;
      if (problem.status === 0) await back(signal);
      // Any call asks for the key where there is none, or another; it is then the same for this one.
      else if (problem.status === 401) {
        await ask("v1/jobs", { query: { limit: 1 } });
        if (key() === used) throw problem;
      } else throw problem;
    }
  }
}

/** Until the service is back. @param {AbortSignal} signal @returns {Promise<void>} */
function back(signal) {
  return new Promise((resolve, reject) => {
    if (reachable.value) {
      resolve();
      return;
    }
    const end = reachable.follow((there) => {
      if (!there) return;
      end();
      resolve();
    });
    signal.addEventListener("abort", () => {
      end();
      reject(signal.reason);
    });
  });
}

/** @param {string} where @param {FormData} form @param {(share: number) => void} tell @param {AbortSignal} signal @param {string} once */
function sendOnce(where, form, tell, signal, once) {
  return /** @type {Promise<Json>} */ (
    new Promise((resolve, reject) => {
      const request = new XMLHttpRequest(); // `fetch` tells nothing of how far it is
      request.open("POST", address(where));
      for (const [name, value] of Object.entries(headers({ "Idempotency-Key": once })))
        request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => event.lengthComputable && tell(event.loaded / event.total);
      request.onload = () => {
        if (request.status >= 200 && request.status < 300) resolve(JSON.parse(request.responseText));
        else if (request.status >= 502 && !(request.getResponseHeader("content-type") ?? "").includes("json"))
          reject(unreachable());
        else reject(problemFrom(request.status, request.responseText, request.getResponseHeader("x-request-id"), null));
      };
      request.onerror = () => reject(unreachable());
      request.onabort = () => reject(signal.reason);
      signal.addEventListener("abort", () => request.abort());
      request.send(form);
    })
  );
}
