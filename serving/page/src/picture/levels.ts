import type { Level } from "../service/contract";

/** One level of a pyramid: how many pixels of the image lie along one of its pixels. */
export interface Scale {
  factor: number;
  columns: number;
  rows: number;
  width: number;
  height: number;
}

/**
 * Describe the levels of a pyramid, the full size first.
 *
 * Levels are rounded to whole pixels: 1001 pixels in half are 501. The factor is then still 2, not 1.998, or tiles
 * would be drawn up to a pixel beside their place.
 */
export function scalesOf(levels: Level[], tile: number): Scale[] {
  const full = levels[0];
  if (full === undefined) return [];
  return levels.map(({ width, height }) => ({
    factor: factorOf(full.width, width),
    columns: Math.ceil(width / tile),
    rows: Math.ceil(height / tile),
    width,
    height,
  }));
}

function factorOf(full: number, reduced: number): number {
  const whole = Math.round(full / reduced);
  const exact = Math.ceil(full / whole) === reduced || Math.floor(full / whole) === reduced;
  return exact ? whole : full / reduced;
}

/** Return the coarsest level whose pixels are at most `largest` pixels of the screen wide. */
export function levelFor(scales: Scale[], imagePixelsPerScreenPixel: number, largest = 1.5): number {
  let chosen = 0;
  scales.forEach((scale, level) => {
    if (scale.factor <= imagePixelsPerScreenPixel * largest) chosen = level;
  });
  return chosen;
}
