/** What may be wrong with images, found before any of them is sent: doubles, blank ones, colours, sizes, balance. */

import { counted, number } from "../words.js";
import { imagesOf } from "./collection.js";

/** @typedef {import("./collection.js").Collection} Collection */
/** @typedef {{ kind: "bad" | "warn" | "note", text: string }} Finding */
/** @typedef {{ name: string, path: string, hash: string, width: number, height: number, blank: boolean, coloured: boolean, read: boolean }} Seen */
/** @typedef {{ channels: number, height: number, width: number, convert?: boolean }} InputShape */

const SIDE = 16;
const SIDE_BY_SIDE = 4;
const FEW = 20;
const UNBALANCED = 10;
/** Differences of grey images that a lossy format may have. */
const COLOURED = 24;

/**
 * Each image as it was seen, as far as `signal` lets it.
 *
 * @param {Collection} collection
 * @param {(seen: number, of: number) => void} tell
 * @param {AbortSignal} signal
 */
export async function look(collection, tell, signal) {
  const waiting = imagesOf(collection);
  const of = waiting.length;
  /** @type {Seen[]} */
  const seen = [];
  const worker = async () => {
    const canvas = document.createElement("canvas");
    canvas.width = SIDE;
    canvas.height = SIDE;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    for (let next = waiting.shift(); next !== undefined && !signal.aborted; next = waiting.shift()) {
      const blob = await next.entry.read();
      seen.push({
        name: next.name,
        path: next.entry.path,
        hash: hashed(new Uint8Array(await blob.arrayBuffer())),
        ...(await pixels(blob, context)),
      });
      if (seen.length % 20 === 0) tell(seen.length, of);
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
  tell(seen.length, of);
  return seen;
}

/** @param {Blob} blob @param {CanvasRenderingContext2D} context */
async function pixels(blob, context) {
  try {
    const image = await createImageBitmap(blob);
    const { width, height } = image;
    context.fillStyle = "#fff";
    context.fillRect(0, 0, SIDE, SIDE);
    context.drawImage(image, 0, 0, SIDE, SIDE);
    image.close();
    const { data } = context.getImageData(0, 0, SIDE, SIDE);
    let lowest = 255;
    let highest = 0;
    let apart = 0;
    for (let at = 0; at < data.length; at += 4) {
      const [red, green, blue] = [data[at], data[at + 1], data[at + 2]];
      lowest = Math.min(lowest, red, green, blue);
      highest = Math.max(highest, red, green, blue);
      apart = Math.max(apart, Math.max(red, green, blue) - Math.min(red, green, blue));
    }
    return {
      width,
      height,
      blank: highest - lowest < 3 || (apart > 0 && plain(data)),
      coloured: apart > COLOURED,
      read: true,
    };
  } catch {
    return { width: 0, height: 0, blank: false, coloured: false, read: false };
  }
}

/** Whether all pixels are alike. @param {Uint8ClampedArray} data */
function plain(data) {
  for (let at = 4; at < data.length; at += 1) {
    if (at % 4 !== 3 && Math.abs(data[at] - data[at % 4]) > 2) return false;
  }
  return true;
}

/** A digest that tells contents apart, also where the page came over plain HTTP. @param {Uint8Array} bytes */
function hashed(bytes) {
  let one = 0xdeadbeef;
  let other = 0x41c6ce57;
  for (let at = 0; at < bytes.length; at += 1) {
    one = Math.imul(one ^ bytes[at], 2654435761);
    other = Math.imul(other ^ bytes[at], 1597334677);
  }
  return `${bytes.length}-${one >>> 0}-${other >>> 0}`;
}

/** What the counts alone tell. @param {Collection} collection @param {boolean} [first] Whether of a first task. @returns {Finding[]} */
export function countFindings(collection, first = false) {
  /** @type {Finding[]} */
  const found = [];
  const counts = collection.classes.map((one) => ({ name: one.name, count: one.images.length }));
  if (counts.length === 0)
    found.push({ kind: "bad", text: "There is no folder of images in it. Each class is a folder: <class>/<image>." });
  for (const { name, count } of counts.filter((one) => one.count < 2)) {
    found.push({
      kind: "bad",
      text: `Class “${name}” has ${counted(count, "image")}; each class needs at least two to learn from.`,
    });
  }
  if (collection.misplaced.length > 0) {
    const [first] = collection.misplaced;
    found.push({
      kind: "bad",
      text: `${counted(collection.misplaced.length, "image")} lie outside of the class folders, such as ${first.path}.`,
    });
  }
  const few = counts.filter((one) => one.count >= 2 && one.count < FEW).map((one) => `“${one.name}” (${one.count})`);
  if (few.length > 0)
    found.push({
      kind: "warn",
      text: `Few images: ${few.join(", ")}. With fewer than ${FEW} of a class, how well it does can hardly be measured.`,
    });
  const most = counts.reduce((best, one) => (one.count > best.count ? one : best), counts[0]);
  const least = counts.reduce((best, one) => (one.count < best.count ? one : best), counts[0]);
  if (counts.length > 1 && least.count > 0 && most.count / least.count >= UNBALANCED) {
    found.push({
      kind: "warn",
      text: `Unbalanced: “${most.name}” has ${number(most.count)} images, “${least.name}” ${number(least.count)}. Small classes are given more weight, but more images of them help more.`,
    });
  }
  if (counts.length === 1)
    found.push({
      kind: first ? "warn" : "note",
      text: first
        ? `All images are of one class, “${counts[0].name}”. The first task of a model mostly needs two: drop the folder that holds a folder for each class.`
        : "A task of one class: it is told from the model's other tasks.",
    });
  if (collection.tests > 0)
    found.push({
      kind: "note",
      text: `${counted(collection.tests, "image")} below test/ will be left out: evaluate versions on them.`,
    });
  if (collection.others > 0)
    found.push({
      kind: "note",
      text: `${counted(collection.others, "file is", "files are")} no images and will be left out.`,
    });
  return found;
}

/** What the images tell. @param {Seen[]} seen @param {InputShape} input @returns {Finding[]} */
export function imageFindings(seen, input) {
  /** @type {Finding[]} */
  const found = doubles(seen);
  const blank = seen.filter((one) => one.blank);
  if (blank.length > 0)
    found.push({
      kind: "warn",
      text: `${counted(blank.length, "image is", "images are")} of a single colour, such as ${blank[0].path}.`,
    });
  const readable = seen.filter((one) => one.read);
  const coloured = readable.filter((one) => one.coloured);
  if (input.channels === 1 && !input.convert && coloured.length > 0) {
    found.push({
      kind: "bad",
      text: `${counted(coloured.length, "image is", "images are")} coloured, such as ${coloured[0].path}; this model takes grey images.`,
    });
  }
  const small = readable.filter((one) => one.width < input.width / 2 || one.height < input.height / 2);
  if (small.length > 0) {
    found.push({
      kind: "warn",
      text: `${counted(small.length, "image is", "images are")} less than half as large as the ${input.width} × ${input.height} pixels that the model sees, and will be enlarged.`,
    });
  }
  const unread = seen.length - readable.length;
  if (unread > 0)
    found.push({
      kind: "note",
      text: `${counted(unread, "image")} cannot be shown by this browser (TIFF, perhaps, or damaged); the service will say which it cannot read.`,
    });
  return found;
}

/** Pictures that are there more than once. @param {Seen[]} seen @returns {Finding[]} */
function doubles(seen) {
  /** @type {Map<string, Seen[]>} */
  const same = new Map();
  for (const one of seen) same.set(one.hash, [...(same.get(one.hash) ?? []), one]);
  const groups = [...same.values()].filter((group) => group.length > 1);
  const across = groups.filter((group) => new Set(group.map((one) => one.name)).size > 1);
  const within = groups.filter((group) => !across.includes(group));
  /** @type {Finding[]} */
  const found = [];
  if (across.length > 0) {
    const [first, second] = across[0].filter((one, at, all) => all.findIndex((each) => each.name === one.name) === at);
    found.push({
      kind: "warn",
      text: `${counted(across.length, "picture is", "pictures are")} in more than one class, such as ${first.path} and ${second.path}.`,
    });
  }
  if (within.length > 0) {
    const extra = within.reduce((sum, group) => sum + group.length - 1, 0);
    found.push({
      kind: "warn",
      text: `${counted(extra, "image is a copy", "images are copies")} of another of its class, such as ${within[0][1].path}.`,
    });
  }
  return found;
}
