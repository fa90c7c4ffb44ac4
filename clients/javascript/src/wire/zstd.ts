// Zstandard: Node's own where it has it (22.15, 23.8), else the optional package. Whoever has
// neither does not offer it to the server.

import * as zlib from "node:zlib";
import { decompressionFailed } from "./fault.js";

/** Compresses one frame, and decompresses one to a size that is known. */
export interface Zstd {
  compress(input: Buffer): Uint8Array;
  decompress(input: Buffer, size: number): Uint8Array;
}

// The types of the oldest supported Node do not know these.
interface NodeZstd {
  zstdCompressSync?(input: Uint8Array, options: { params: Record<number, number> }): Buffer;
  zstdDecompressSync?(input: Uint8Array, options: { maxOutputLength: number }): Buffer;
}

// Speed counts more than the last percent.
const LEVEL = 1;
/** `ZSTD_c_compressionLevel` of zstd.h. */
const LEVEL_PARAMETER = 100;

async function load(): Promise<Zstd | undefined> {
  const { zstdCompressSync, zstdDecompressSync } = zlib as NodeZstd;
  if (zstdCompressSync !== undefined && zstdDecompressSync !== undefined) {
    return {
      compress: (input) => zstdCompressSync(input, { params: { [LEVEL_PARAMETER]: LEVEL } }),
      decompress(input, size) {
        // The limit must be positive; that the size is right is checked afterwards.
        return zstdDecompressSync(input, { maxOutputLength: Math.max(size, 1) });
      },
    };
  }
  try {
    const zstd = await import("@bokuweb/zstd-wasm");
    await zstd.init();
    return {
      compress: (input) => zstd.compress(input, LEVEL),
      decompress(input, size) {
        // The package allocates what the frame claims, so the claim is read first.
        const claimed = frameContentSize(input);
        if (claimed !== undefined && claimed !== size) throw decompressionFailed("Zstd");
        return zstd.decompress(input, { defaultHeapSize: size });
      },
    };
  } catch {
    return undefined;
  }
}

/** The size that the header of a frame states (RFC 8878 §3.1.1.1), if it does. */
export function frameContentSize(input: Buffer): number | undefined {
  if (input.length < 5 || input.readUInt32LE(0) !== 0xfd2f_b528) throw decompressionFailed("Zstd");
  const descriptor = input[4]!;
  const singleSegment = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >> 6;
  const at = 5 + (singleSegment ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!;
  const width = sizeFlag === 0 ? (singleSegment ? 1 : 0) : 1 << sizeFlag;
  if (width === 0) return undefined;
  if (input.length < at + width) throw decompressionFailed("Zstd");
  if (width === 8) return Number(input.readBigUInt64LE(at));
  // Two bytes count from 256.
  return input.readUIntLE(at, width) + (width === 2 ? 256 : 0);
}

let loaded: Promise<Zstd | undefined> | undefined;

/** The implementation that there is, or undefined. */
export function loadZstd(): Promise<Zstd | undefined> {
  loaded ??= load();
  return loaded;
}
