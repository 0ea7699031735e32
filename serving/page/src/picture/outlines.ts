/** Draws sampled labels as outlines and areas, pixel by pixel of the screen. */

import { PALETTE, paletteIndex, pixelOf } from "./colours";
import type { LabelStyle } from "./labelMessages";
import { UNKNOWN } from "./sampling";

const SELECTED = 0xffffff;
const SELECTED_LINE = 2; // times the width of other lines
const SHADOW = pixelOf(0x000000, 0.6);
const FAR = 0x7fffffff;

/**
 * Draw labels into the pixels of a canvas.
 *
 * A pixel belongs to the outline of its object if a pixel at most `lineWidth` away along a row or column has another
 * label. Every object has its own line, inside its border, so that objects that touch stay apart. A wide line has a
 * dark one beside it, so that it is seen on ground of its own colour.
 *
 * @param colours the colour of every label, 0 for the colour of its number; null if all have the colour of their number
 */
export function paintLabels(
  pixels: Uint32Array,
  labels: Uint32Array,
  width: number,
  height: number,
  style: LabelStyle,
  colours: Uint32Array | null,
): void {
  const selected = new Set(style.selected);
  const fill = style.mode === "filled" ? 0.55 * style.opacity : 0;
  const lines = paletteWith(style.opacity);
  const areas = paletteWith(fill);
  const any = selected.size > 0;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const label = labels[at]!;
      if (label === 0 || label === UNKNOWN) {
        pixels[at] = 0;
        continue;
      }
      const chosen = any && selected.has(label);
      const reach = chosen ? SELECTED_LINE * style.lineWidth : style.lineWidth;
      const shadow = reach > 1 ? 1 : 0;
      const distance = distanceToEdge(labels, width, height, x, y, label, reach + shadow);
      const edge = distance <= reach;
      if (!edge && distance <= reach + shadow) {
        pixels[at] = SHADOW;
      } else if (!edge && fill === 0 && !chosen) {
        pixels[at] = 0;
      } else if (chosen) {
        pixels[at] = pixelOf(SELECTED, edge ? 1 : Math.max(0.25, fill));
      } else {
        const colour = colours?.[label] ?? 0;
        if (colour !== 0) pixels[at] = pixelOf(colour, edge ? style.opacity : fill);
        else pixels[at] = (edge ? lines : areas)[paletteIndex(label)]!;
      }
    }
  }
}

function paletteWith(alpha: number): Uint32Array {
  return PALETTE.map((colour) => pixelOf(colour, alpha));
}

/** Return the steps along a row or column to the next pixel of another label, if there are at most `reach`. */
function distanceToEdge(
  labels: Uint32Array,
  width: number,
  height: number,
  x: number,
  y: number,
  label: number,
  reach: number,
): number {
  const at = y * width + x;
  for (let step = 1; step <= reach; step++) {
    if (x >= step && differs(labels[at - step]!, label)) return step;
    if (x + step < width && differs(labels[at + step]!, label)) return step;
    if (y >= step && differs(labels[at - step * width]!, label)) return step;
    if (y + step < height && differs(labels[at + step * width]!, label)) return step;
  }
  return FAR;
}

function differs(other: number, label: number): boolean {
  return other !== label && other !== UNKNOWN;
}
