// What the runtime reads a checkpoint through. It lives in the worker.

/** The files of one checkpoint, read by name and range. */
export interface ModelFiles {
  /** How messages name this checkpoint. */
  describe(): string;
  /** The names of all files at the top of the checkpoint, as far as they are known. */
  names(): Promise<string[]>;
  /** The size of a file in bytes, `undefined` when there is no such file. */
  size(name: string): Promise<number | undefined>;
  /** Exactly the bytes from `start` to `end`, at most 16 MiB of them. */
  read(name: string, start: number, end: number): Promise<Uint8Array>;
  /** Ends what is under way and gives handles and locks back. */
  close(): Promise<void>;
}

/** Where quantized files are written to. */
export interface FileSink {
  /** Puts bytes at an offset of a file, which begins to exist with its first piece. */
  write(name: string, offset: number, bytes: Uint8Array): Promise<void>;
}
