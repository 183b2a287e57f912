/** Archives, made and looked into in the browser. */

/** @typedef {import("./collection.js").Entry} Entry */

/** Bytes of the largest archive that is looked into; a larger one is sent unseen. */
export const MOST_SEEN = 1.5e9;

const CHUNKS = 32 * 1024 * 1024;
/** The same bytes whenever it is packed, so that one sent again is the same request. */
const TIME = new Date(1980, 0, 1, 12);

/** Whether it is an archive by its name. @param {string} name */
export function isArchive(name) {
  return /\.(zip|tar|tgz|tar\.gz|tar\.xz|txz|tar\.bz2)$/i.test(name);
}

/** Whether it can be looked into here. @param {Blob} file @param {string} name */
export function isSeen(file, name) {
  return /\.(zip|tar|tgz|tar\.gz)$/i.test(name) && file.size <= MOST_SEEN;
}

/** Files that are unpacked together, and groups of them that are kept: each time the whole directory is read. */
const GROUP = 200;
const KEPT_GROUPS = 3;

/** The files in an archive that can be looked into. @param {Blob} file @param {string} name @returns {Promise<Entry[]>} */
export async function entriesOf(file, name) {
  if (/\.zip$/i.test(name)) return entriesOfZip(file);
  const { entriesOfTar } = await import("./tar.js");
  return entriesOfTar(file, /gz$/i.test(name), MOST_SEEN);
}

/** @param {Blob} file @returns {Promise<Entry[]>} */
async function entriesOfZip(file) {
  const { unzipSync } = await import("../vendor/fflate.js");
  const bytes = new Uint8Array(await file.arrayBuffer());
  /** @type {{ name: string, size: number }[]} */
  const listed = [];
  unzipSync(bytes, {
    filter: (one) => {
      if (!one.name.endsWith("/")) listed.push({ name: one.name, size: one.originalSize });
      return false;
    },
  });
  /** @type {Map<number, Record<string, Uint8Array<ArrayBuffer>>>} */
  const groups = new Map();
  const group = (/** @type {number} */ number) => {
    const kept = groups.get(number);
    if (kept) return kept;
    const names = new Set(listed.slice(number * GROUP, (number + 1) * GROUP).map((one) => one.name));
    const found = unzipSync(bytes, { filter: (one) => names.has(one.name) });
    groups.set(number, found);
    for (const old of [...groups.keys()].slice(0, -KEPT_GROUPS)) groups.delete(old);
    return found;
  };
  return listed.map(({ name, size }, at) => ({
    path: name,
    size,
    read: async () => new Blob([group(Math.floor(at / GROUP))[name]]),
  }));
}

/**
 * A zip of files as they are: images are packed already.
 *
 * @param {Entry[]} entries
 * @param {(share: number) => void} tell
 * @param {AbortSignal} signal
 * @returns {Promise<Blob>}
 */
export async function pack(entries, tell, signal) {
  const { Zip, ZipPassThrough } = await import("../vendor/fflate.js");
  /** @type {Uint8Array[]} */
  let chunks = [];
  let held = 0;
  let whole = new Blob([]);
  const settle = () => {
    // The browser may put a blob on its disk; what is in an array stays in memory.
    whole = new Blob([whole, .../** @type {BlobPart[]} */ (chunks)], { type: "application/zip" });
    chunks = [];
    held = 0;
  };
  const zip = new Zip((error, chunk) => {
    if (error) throw error;
    chunks.push(chunk);
    held += chunk.length;
  });
  for (const [number, entry] of entries.entries()) {
    signal.throwIfAborted();
    const file = new ZipPassThrough(entry.path);
    file.mtime = TIME;
    zip.add(file);
    file.push(new Uint8Array(await (await entry.read()).arrayBuffer()), true);
    if (held > CHUNKS) settle();
    if (number % 25 === 0) tell(number / entries.length);
  }
  zip.end();
  settle();
  tell(1);
  return whole;
}
