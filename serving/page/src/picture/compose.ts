/** Puts the grey tiles of channels together to one coloured tile. */

export interface GreyTile {
  width: number;
  height: number;
  /** One byte for each pixel. */
  pixels: Uint8Array;
  /** The intensities that the service drew as 0 and 255. */
  low: number;
  high: number;
}

export interface Appearance {
  colour: number;
  low: number;
  high: number;
}

/**
 * Return the brightness from 0 to 255 at which each grey value of a tile is shown.
 *
 * A tile that was drawn for other limits than the wanted ones is stretched, so that a slider shows its effect at once.
 */
export function brightness(tile: Pick<GreyTile, "low" | "high">, wanted: Pick<Appearance, "low" | "high">): Uint8Array {
  const table = new Uint8Array(256);
  const range = Math.max(wanted.high - wanted.low, Number.EPSILON);
  for (let grey = 0; grey < 256; grey++) {
    const intensity = tile.low + (grey / 255) * (tile.high - tile.low);
    table[grey] = Math.max(0, Math.min(255, Math.round((255 * (intensity - wanted.low)) / range)));
  }
  return table;
}

/** Add up channels of one size in their colours; returns the RGBA bytes of a canvas. */
export function compose(
  layers: { tile: GreyTile; appearance: Appearance }[],
  width: number,
  height: number,
): Uint8ClampedArray<ArrayBuffer> {
  // The clamped array stops at 255, so that bright channels saturate and do not wrap around.
  const rgba = new Uint8ClampedArray(4 * width * height);
  for (let at = 3; at < rgba.length; at += 4) rgba[at] = 255;
  for (const { tile, appearance } of layers) {
    const table = brightness(tile, appearance);
    const [red, green, blue] = [16, 8, 0].map((shift) => ((appearance.colour >>> shift) & 255) / 255) as [
      number,
      number,
      number,
    ];
    for (let place = 0, at = 0; place < tile.pixels.length; place++, at += 4) {
      const value = table[tile.pixels[place]!]!;
      rgba[at] = rgba[at]! + value * red;
      rgba[at + 1] = rgba[at + 1]! + value * green;
      rgba[at + 2] = rgba[at + 2]! + value * blue;
    }
  }
  return rgba;
}
