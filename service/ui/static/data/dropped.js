/** Files out of what was dropped on the page, folders and all that is in them included. */

/** @typedef {{ path: string, file: Blob }} GivenFile a file, and its path from what was dropped on */

/** @param {DataTransfer} dropped @returns {Promise<GivenFile[]>} */
export async function filesOf(dropped) {
  // Asked for at once: entries are gone after the first wait.
  const entries = [...dropped.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry);
  const loose = [...dropped.files];
  if (entries.length === 0) return loose.map((file) => ({ path: file.name, file }));
  const found = await Promise.all(entries.map((entry) => below(/** @type {FileSystemEntry} */ (entry), "")));
  return found.flat();
}

/** @param {FileSystemEntry} entry @param {string} before @returns {Promise<GivenFile[]>} */
async function below(entry, before) {
  const path = `${before}${entry.name}`;
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) =>
      /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject),
    );
    return [{ path, file }];
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  /** @type {GivenFile[]} */
  const found = [];
  for (;;) {
    // A reader gives a hundred entries at a time.
    const entries = await new Promise((/** @type {(found: FileSystemEntry[]) => void} */ resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (entries.length === 0) return found;
    for (const inside of entries) found.push(...(await below(inside, `${path}/`)));
  }
}
