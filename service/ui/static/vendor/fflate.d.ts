/** Types of what the page takes of fflate. */

export interface EntryInfo {
  name: string;
  size: number;
  originalSize: number;
  compression: number;
}

export function unzipSync(bytes: Uint8Array, options?: { filter?: (entry: EntryInfo) => boolean }): Record<string, Uint8Array<ArrayBuffer>>;

export class Zip {
  constructor(receive: (error: Error | null, chunk: Uint8Array, last: boolean) => void);
  add(file: ZipPassThrough): void;
  end(): void;
}

export class ZipPassThrough {
  constructor(name: string);
  mtime: Date;
  push(chunk: Uint8Array, last?: boolean): void;
}
