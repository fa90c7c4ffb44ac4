// CRC-32C (Castagnoli, reflected): the checksum of a frame.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f6_3b78 : 0);
  return crc;
});

/** The checksum of the parts one after the other. */
export function crc32c(...parts: Uint8Array[]): number {
  let crc = 0xffff_ffff;
  for (const part of parts) {
    for (let i = 0; i < part.length; i++) {
      crc = (crc >>> 8) ^ TABLE[(crc ^ part[i]!) & 0xff]!;
    }
  }
  return (crc ^ 0xffff_ffff) >>> 0;
}
