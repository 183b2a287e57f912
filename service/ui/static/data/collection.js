/** The classes of a folder or archive, found as the service finds them: `<class>/<image>`, below one more folder or not. */

/** @typedef {{ path: string, size: number, read: () => Promise<Blob> }} Entry a file, and how to have its content */
/** @typedef {{ name: string, images: Entry[], validation: Entry[] }} ClassFolder */
/**
 * @typedef {object} Collection
 * @property {ClassFolder[]} classes by name
 * @property {Entry[]} misplaced images in no class folder, or deeper than in one
 * @property {number} others files that are no images
 * @property {number} bytes of all images
 */

const IMAGE = /\.(png|jpe?g|jpe|jfif|webp|gif|bmp|dib|tiff?|avif)$/i;
const LEFT_BEHIND = /(^|\/)(__MACOSX|@eaDir|lost\+found|\$RECYCLE\.BIN|\.[^/]*|Thumbs\.db|desktop\.ini|Icon\r)(\/|$)/i;
const SETS = new Set(["train", "val"]);

/** @param {Entry[]} entries @returns {Collection} */
export function collect(entries) {
  const kept = entries.filter((entry) => !LEFT_BEHIND.test(entry.path));
  const images = unpacked(kept.filter((entry) => IMAGE.test(entry.path)));
  const inSets = images.length > 0 && images.every((entry) => SETS.has(entry.path.split("/")[0]));
  /** @type {Map<string, ClassFolder>} */
  const classes = new Map();
  /** @type {Entry[]} */
  const misplaced = [];
  for (const entry of images) {
    const parts = entry.path.split("/");
    const set = inSets ? parts.shift() : "train";
    if (parts.length !== 2) {
      misplaced.push(entry);
      continue;
    }
    const name = parts[0].normalize("NFC");
    const found = classes.get(name) ?? { name, images: [], validation: [] };
    classes.set(name, found);
    (set === "val" ? found.validation : found.images).push(entry);
  }
  return {
    classes: [...classes.values()].sort((one, other) => (one.name < other.name ? -1 : 1)),
    misplaced,
    others: kept.length - images.length,
    bytes: images.reduce((sum, entry) => sum + entry.size, 0),
  };
}

/** The images without the one folder that all of them lie below, where that is no class. @param {Entry[]} images */
function unpacked(images) {
  const tops = new Set(images.map((entry) => entry.path.split("/")[0]));
  const deep = images.every((entry) => entry.path.split("/").length > 2);
  if (tops.size !== 1 || !deep || SETS.has([...tops][0])) return images;
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
