// The algorithms a body may be compressed with.

import { lz4Compress, lz4Decompress } from "./lz4.js";
import { decompressionFailed } from "./fault.js";
import type { CompressionType } from "./message.js";
import { snappyCompress, snappyDecompress } from "./snappy.js";
import { loadZstd, type Zstd } from "./zstd.js";

/** Smaller bodies are sent as they are. */
export const COMPRESSION_THRESHOLD = 1024;

/** One algorithm. */
export interface Compressor {
  compress(body: Buffer): Uint8Array;
  /** Gives exactly `size` bytes, or throws. */
  decompress(body: Buffer, size: number): Buffer;
}

function fromZstd(zstd: Zstd): Compressor {
  return {
    compress: (body) => zstd.compress(body),
    decompress(body, size) {
      let result: Uint8Array;
      try {
        result = zstd.decompress(body, size);
      } catch {
        throw decompressionFailed("Zstd");
      }
      if (result.length !== size) throw decompressionFailed("Zstd");
      return Buffer.from(result.buffer, result.byteOffset, result.length);
    },
  };
}

/** Those of `wanted` that this process can use, in the same order, by name. */
export async function compressors(
  wanted: readonly CompressionType[],
): Promise<Map<CompressionType, Compressor>> {
  const found = new Map<CompressionType, Compressor>();
  for (const name of wanted) {
    if (name === "Lz4") found.set(name, { compress: lz4Compress, decompress: lz4Decompress });
    if (name === "Snappy") {
      found.set(name, { compress: snappyCompress, decompress: snappyDecompress });
    }
    if (name === "Zstd") {
      const zstd = await loadZstd();
      if (zstd !== undefined) found.set(name, fromZstd(zstd));
    }
  }
  return found;
}
