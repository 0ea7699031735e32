/** Colours as 0xRRGGBB, and as the pixels of a canvas. */

// The colours of Okabe and Ito, which people with any colour vision can tell apart, then lighter ones.
const CLASS_COLOURS = [
  0xe69f00, 0x56b4e9, 0x009e73, 0xf0e442, 0xcc79a7, 0xd55e00, 0x0072b2, 0xb2df8a, 0xfb9a99, 0xcab2d6,
];
const CHANNEL_COLOURS = [0x00d060, 0xff40ff, 0x30a0ff, 0xffd000, 0xff4040, 0x00d8d8];
const DYES: [RegExp, number][] = [
  [/dapi|hoechst|draq|nucle/i, 0x4080ff],
  [/gfp|fitc|alexa ?488|green|calcein/i, 0x00d060],
  [/rfp|mcherry|tritc|alexa ?5(46|55|61|68|94)|tdtomato|texas|pi\b|red/i, 0xff4040],
  [/cy5|alexa ?6\d\d|far/i, 0xff40ff],
  [/bf|bright|phase|dic|trans/i, 0xffffff],
];
const PALETTE_SIZE = 512;

/** Return the usual colour of a channel by the name of its dye; a lone channel is grey. */
export function channelColour(name: string, index: number, count: number): number {
  if (count === 1) return 0xffffff;
  const dye = DYES.find(([pattern]) => pattern.test(name));
  return dye?.[1] ?? CHANNEL_COLOURS[index % CHANNEL_COLOURS.length] ?? 0xffffff;
}

/** Return a colour for every class, in the order of the names. */
export function classColours(names: string[]): Map<string, number> {
  return new Map(names.map((name, index) => [name, CLASS_COLOURS[index % CLASS_COLOURS.length] ?? 0xffffff]));
}

export function cssColour(colour: number): string {
  return `#${colour.toString(16).padStart(6, "0")}`;
}

export function parseColour(text: string): number {
  return Number.parseInt(text.slice(1), 16);
}

/** Return the place of a label in the palette: neighbouring numbers get places far apart, always the same ones. */
export function paletteIndex(label: number): number {
  let mixed = Math.imul(label ^ (label >>> 16), 0x45d9f3b);
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x45d9f3b);
  return (mixed ^ (mixed >>> 16)) & (PALETTE_SIZE - 1);
}

/** The colours of labels: bright, of every hue. */
export const PALETTE: Uint32Array = makePalette();

export function labelColour(label: number): number {
  return PALETTE[paletteIndex(label)] ?? 0;
}

function makePalette(): Uint32Array {
  const palette = new Uint32Array(PALETTE_SIZE);
  for (let place = 0; place < PALETTE_SIZE; place++) {
    // Steps of the golden angle spread the hues evenly, however many are used.
    palette[place] = fromHsl((place * 137.508) % 360, 0.75 + 0.25 * ((place >> 3) & 1), 0.55 + 0.06 * (place % 3));
  }
  return palette;
}

function fromHsl(hue: number, saturation: number, lightness: number): number {
  const chroma = saturation * Math.min(lightness, 1 - lightness);
  const part = (offset: number): number => {
    const k = (offset + hue / 30) % 12;
    return Math.round(255 * (lightness - chroma * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return (part(0) << 16) | (part(8) << 8) | part(4);
}

/** Return a colour as the pixel of a canvas on a little-endian machine, as all machines with a browser are. */
export function pixelOf(colour: number, alpha: number): number {
  const [red, green, blue] = [colour >>> 16, (colour >>> 8) & 255, colour & 255];
  return ((Math.round(alpha * 255) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
