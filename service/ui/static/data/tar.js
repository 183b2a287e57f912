/** Tars, plain or packed by gzip, looked into in the browser. */

/** @typedef {import("./collection.js").Entry} Entry */
/** @typedef {{ name: string, size: number, type: string }} Header */

const BLOCK = 512;
/** Bytes that are read at once: small files lie close together. */
const WINDOW = 1024 * 1024;
/** Bytes of the longest name that is read. */
const MOST_NAME = 64 * 1024;

/**
 * The files in a tar.
 *
 * @param {Blob} file
 * @param {boolean} packed whether by gzip
 * @param {number} most bytes that it may unpack to
 * @returns {Promise<Entry[]>}
 */
export async function entriesOfTar(file, packed, most) {
  const whole = packed ? await unpacked(file, most) : file;
  const read = reader(whole);
  /** @type {Entry[]} */
  const found = [];
  /** What an entry before the file says of it. @type {{ path?: string, size?: number }} */
  let said = {};
  for (let at = 0; at + BLOCK <= whole.size; ) {
    const block = await read(at, BLOCK);
    at += BLOCK;
    if (block.every((byte) => byte === 0)) continue; // the end; another may follow
    const header = headerOf(block);
    const size = header.type === "x" || header.type === "L" ? header.size : (said.size ?? header.size);
    if (at + size > whole.size) throw new Error("it is cut off");
    if (header.type === "x" || header.type === "L") {
      const about = await read(at, Math.min(size, MOST_NAME));
      said = { ...said, ...(header.type === "L" ? { path: text(about) } : recordsOf(about)) };
    } else if (header.type !== "g" && header.type !== "K") {
      const path = (said.path ?? header.name).replace(/^(\.?\/)+/, "");
      const begin = at;
      if (["0", "7", "\0"].includes(header.type) && !path.endsWith("/"))
        found.push({ path, size, read: async () => whole.slice(begin, begin + size) });
      said = {};
    }
    at += Math.ceil(size / BLOCK) * BLOCK;
  }
  return found;
}

/** What gzip has packed; throws where it is more than `most` bytes. @param {Blob} file @param {number} most */
function unpacked(file, most) {
  let size = 0;
  const bounded = new TransformStream({
    transform(chunk, to) {
      size += chunk.byteLength;
      if (size > most) throw new RangeError("it unpacks to too much");
      to.enqueue(chunk);
    },
  });
  return new Response(file.stream().pipeThrough(new DecompressionStream("gzip")).pipeThrough(bounded)).blob();
}

/** A function that reads bytes of a blob, each window of it once. @param {Blob} blob */
function reader(blob) {
  let begin = 0;
  let window = new Uint8Array(0);
  return async (/** @type {number} */ at, /** @type {number} */ length) => {
    if (at < begin || at + length > begin + window.length) {
      begin = at;
      window = new Uint8Array(await blob.slice(at, at + Math.max(WINDOW, length)).arrayBuffer());
    }
    return window.subarray(at - begin, at - begin + length);
  };
}

/** @param {Uint8Array} block @returns {Header} */
function headerOf(block) {
  const sum = block.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 32 : byte), 0);
  if (sum !== parseInt(text(block.subarray(148, 156)), 8)) throw new Error("it is no tar, or damaged");
  const name = text(block.subarray(0, 100));
  // Where GNU's own format has times, POSIX has the beginning of a long name.
  const prefix = text(block.subarray(257, 265)).startsWith("ustar ") ? "" : text(block.subarray(345, 500));
  const size = block[124] & 0x80 ? binary(block.subarray(125, 136)) : parseInt(text(block.subarray(124, 136)), 8);
  if (!(size >= 0)) throw new Error("it is no tar, or damaged");
  return { name: prefix ? `${prefix}/${name}` : name, size, type: String.fromCharCode(block[156]) };
}

/** Text until the first zero. @param {Uint8Array} bytes */
function text(bytes) {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** @param {Uint8Array} bytes */
function binary(bytes) {
  return bytes.reduce((value, byte) => value * 256 + byte, 0);
}

/** Path and size out of records `<length> <name>=<value>\n`. @param {Uint8Array} bytes */
function recordsOf(bytes) {
  /** @type {{ path?: string, size?: number }} */
  const found = {};
  for (let at = 0; at < bytes.length; ) {
    const space = bytes.indexOf(32, at);
    const length = parseInt(text(bytes.subarray(at, space)), 10);
    if (space < 0 || !(length > 0)) break;
    const [name, ...value] = text(bytes.subarray(space + 1, at + length - 1)).split("=");
    if (name === "path") found.path = value.join("=");
    if (name === "size") found.size = Number(value.join("="));
    at += length;
  }
  return found;
}
