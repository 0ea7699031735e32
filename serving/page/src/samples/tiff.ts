/** Write a grey image of 8 bit as an uncompressed TIFF, which every reader of microscopy images knows. */
export function greyTiff(pixels: Uint8Array, width: number, height: number): Blob {
  const entries: [tag: number, type: number, value: number][] = [
    [256, LONG, width],
    [257, LONG, height],
    [258, SHORT, 8], // bits per sample
    [259, SHORT, 1], // no compression
    [262, SHORT, 1], // 0 is black
    [273, LONG, 0], // where the pixels begin, filled in below
    [277, SHORT, 1], // samples per pixel
    [278, LONG, height], // rows per strip
    [279, LONG, pixels.length],
  ];
  const start = HEADER + 2 + entries.length * ENTRY + 4;
  const head = new DataView(new ArrayBuffer(start));
  head.setUint16(0, 0x4949); // little-endian
  head.setUint16(2, 42, true);
  head.setUint32(4, HEADER, true);
  head.setUint16(HEADER, entries.length, true);
  entries.forEach(([tag, type, value], place) => {
    const at = HEADER + 2 + place * ENTRY;
    head.setUint16(at, tag, true);
    head.setUint16(at + 2, type, true);
    head.setUint32(at + 4, 1, true);
    const written = tag === 273 ? start : value;
    if (type === SHORT) head.setUint16(at + 8, written, true);
    else head.setUint32(at + 8, written, true);
  });
  return new Blob([head.buffer, pixels as Uint8Array<ArrayBuffer>], { type: "image/tiff" });
}

const [SHORT, LONG] = [3, 4];
const [HEADER, ENTRY] = [8, 12]; // bytes
