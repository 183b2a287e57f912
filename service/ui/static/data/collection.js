/** The classes of a folder or archive, found as the service finds them: `<class>/<image>`, below one more folder or not. */

/** @typedef {{ path: string, size: number, read: () => Promise<Blob> }} Entry a file, and how to have its content */
/** @typedef {{ name: string, images: Entry[], validation: Entry[] }} ClassFolder */
/**
 * @typedef {object} Collection
 * @property {ClassFolder[]} classes by name
 * @property {Entry[]} misplaced images in no class folder, or deeper than in one
 * @property {number} others files that are no images
 * @property {number} tests images below `test/`, of which nothing is learned
 * @property {number} bytes of all images
 */

const IMAGE = /\.(png|jpe?g|jpe|jfif|webp|gif|bmp|dib|tiff?|avif)$/i;
const LEFT_BEHIND = /(^|\/)(__MACOSX|@eaDir|lost\+found|\$RECYCLE\.BIN|\.[^/]*|Thumbs\.db|desktop\.ini|Icon\r)(\/|$)/i;
/** What the parts of an archive are, by the names of their folders. @type {Record<string, "train" | "val" | "test">} */
const PARTS = { train: "train", val: "val", valid: "val", validation: "val", test: "test" };

/**
 * The classes of files with paths from their archive on, or from the folder that was dropped.
 *
 * @param {Entry[]} entries
 * @param {boolean} [dropped] whether they were dropped: the one folder around all of them is no part then, by any name
 * @returns {Collection}
 */
export function collect(entries, dropped = false) {
  const kept = entries.filter((entry) => !LEFT_BEHIND.test(entry.path));
  const images = unpacked(imagesIn(kept), dropped);
  const inSets = images.length > 0 && images.every((entry) => partOf(entry) !== undefined);
  /** @type {Map<string, ClassFolder>} */
  const classes = new Map();
  /** @type {Entry[]} */
  const misplaced = [];
  let tests = 0;
  for (const entry of images) {
    const parts = entry.path.split("/");
    const part = inSets ? PARTS[/** @type {string} */ (parts.shift())] : "train";
    if (part === "test") {
      tests += 1;
      continue;
    }
    if (parts.length !== 2) {
      misplaced.push(entry);
      continue;
    }
    const name = parts[0].normalize("NFC");
    const found = classes.get(name) ?? { name, images: [], validation: [] };
    classes.set(name, found);
    (part === "val" ? found.validation : found.images).push(entry);
  }
  return {
    classes: [...classes.values()].sort((one, other) => (one.name < other.name ? -1 : 1)),
    misplaced,
    others: kept.length - images.length,
    tests,
    bytes: images.reduce((sum, entry) => sum + entry.size, 0),
  };
}

/** @param {Entry[]} entries */
function imagesIn(entries) {
  return entries.filter((entry) => IMAGE.test(entry.path));
}

/** The part whose folder a file lies below, if it is one. @param {Entry} entry */
function partOf(entry) {
  const [first, ...below] = entry.path.split("/");
  return below.length > 1 && Object.hasOwn(PARTS, first) ? PARTS[first] : undefined;
}

/**
 * Labelled images to evaluate on: of what has a part `test`, that part.
 *
 * @param {Entry[]} entries as they were dropped
 * @returns {{ images: Entry[], labels: Set<string> }}
 */
export function labelled(entries) {
  const images = unpacked(imagesIn(entries.filter((entry) => !LEFT_BEHIND.test(entry.path))), true);
  const tests = images.filter((entry) => partOf(entry) === "test");
  const chosen = tests.length > 0 ? tests : images;
  return { images: chosen, labels: new Set(chosen.map((entry) => entry.path.split("/").at(-2) ?? "")) };
}

/**
 * The images without the one folder that all of them lie below, where that is no class.
 *
 * @param {Entry[]} images
 * @param {boolean} dropped
 */
function unpacked(images, dropped) {
  const tops = new Set(images.map((entry) => entry.path.split("/")[0]));
  const deep = images.every((entry) => entry.path.split("/").length > 2);
  if (tops.size !== 1 || !deep || (!dropped && partOf(images[0]) !== undefined)) return images;
  const length = [...tops][0].length + 1;
  return images.map((entry) => ({ ...entry, path: entry.path.slice(length) }));
}

/** The images with the paths that they have in an archive of the collection. @param {Collection} collection @returns {Entry[]} */
export function packable(collection) {
  const sets = collection.classes.some((one) => one.validation.length > 0);
  const placed = (/** @type {Entry} */ entry, /** @type {string} */ folder) => ({
    ...entry,
    path: `${folder}/${entry.path.split("/").pop()}`,
  });
  return collection.classes.flatMap((one) => [
    ...one.images.map((entry) => placed(entry, sets ? `train/${one.name}` : one.name)),
    ...one.validation.map((entry) => placed(entry, `val/${one.name}`)),
  ]);
}

/** All images of a collection. @param {Collection} collection */
export function imagesOf(collection) {
  return collection.classes.flatMap((one) =>
    [...one.images, ...one.validation].map((entry) => ({ entry, name: one.name })),
  );
}
