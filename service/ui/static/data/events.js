/** Events of a job, read by `fetch`, since a browser's own reader of events cannot send a key. One stream a tab. */

import { ask, path, Problem } from "../service.js";

/** @typedef {import("../service.js").Json} Json */

const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const PAUSES = [300, 1000, 2000, 4000];

/** @type {AbortController | null} */
let open = null;

/**
 * Call `tell` with each event of a job, from the first to the last; what breaks off is taken up again.
 *
 * @param {string} job
 * @param {(event: Json) => void} tell
 * @returns {() => void} what ends it
 */
export function follow(job, tell) {
  open?.abort();
  const over = new AbortController();
  open = over;
  run(job, tell, over.signal).catch((error) => {
    if (!over.signal.aborted) tell({ problem: error });
  });
  return () => over.abort();
}

/** @param {string} job @param {(event: Json) => void} tell @param {AbortSignal} signal */
async function run(job, tell, signal) {
  let last = "";
  for (let failures = 0; !signal.aborted; ) {
    try {
      const headers = last ? { "Last-Event-ID": last } : undefined;
      const response = await ask(`v1/jobs/${path(job)}/events`, { headers, signal });
      if (response.status === 204 || response.body === null) return;
      for await (const event of eventsOf(response.body)) {
        failures = 0;
        if (event.id) last = event.id;
        const data = JSON.parse(event.data);
        tell(data);
        if (FINAL.has(data.state)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      const gone = error instanceof Problem && error.status >= 400 && error.status < 500;
      if (gone) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSES[Math.min(failures, PAUSES.length - 1)]));
    failures += 1;
  }
}

/** The server-sent events in a stream of bytes. @param {ReadableStream<Uint8Array>} body */
export async function* eventsOf(body) {
  const reader = body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text = (text + value).replace(/\r\n/g, "\n");
      for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
        const event = parsed(text.slice(0, end));
        text = text.slice(end + 2);
        if (event.data) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** @param {string} block */
function parsed(block) {
  const event = { id: "", data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue; // a comment, which only keeps the connection
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (line.slice(0, colon) === "data") event.data += (event.data && "\n") + value;
    if (line.slice(0, colon) === "id") event.id = value;
  }
  return event;
}
