/** Looks up the label under every pixel of the screen. */

import type { Raster } from "./labelMessages";
import type { Scale } from "./levels";

/** The label of a pixel whose tile is not there yet. No line is drawn between it and its neighbours. */
export const UNKNOWN = 0xffffffff;

export interface LabelTile {
  width: number;
  labels: Uint32Array;
}

export type TileAt = (level: number, column: number, row: number) => LabelTile | undefined;

interface Run {
  column: number;
  from: number;
  to: number;
}

/**
 * Fill `out` with the labels under the pixels of a raster; 0 outside of the image.
 *
 * A tile of `level` that is missing is replaced by coarser ones, as the picture below does it.
 */
export function sampleLabels(
  out: Uint32Array,
  raster: Raster,
  scales: Scale[],
  level: number,
  tile: number,
  tileAt: TileAt,
): void {
  const scale = scales[level];
  if (scale === undefined) return;
  const columns = places(raster.x, raster.step, raster.width, scale.factor, scale.width);
  const rows = places(raster.y, raster.step, raster.height, scale.factor, scale.height);
  const runs = runsOf(columns, tile);
  for (let y = 0; y < raster.height; y++) {
    const start = y * raster.width;
    const row = rows[y]!;
    if (row < 0) {
      out.fill(0, start, start + raster.width);
      continue;
    }
    const tileRow = Math.floor(row / tile);
    for (const { column, from, to } of runs) {
      const found = column < 0 ? undefined : tileAt(level, column, tileRow);
      if (column < 0) {
        out.fill(0, start + from, start + to);
      } else if (found !== undefined) {
        const offset = (row - tileRow * tile) * found.width - column * tile;
        for (let x = from; x < to; x++) out[start + x] = found.labels[offset + columns[x]!]!;
      } else {
        for (let x = from; x < to; x++) {
          out[start + x] = labelAt(columns[x]! * scale.factor, row * scale.factor, scales, level + 1, tile, tileAt);
        }
      }
    }
  }
}

/** Return the label at a pixel of the image from the finest level at or after `level` whose tile is there. */
export function labelAt(x: number, y: number, scales: Scale[], level: number, tile: number, tileAt: TileAt): number {
  for (let coarser = level; coarser < scales.length; coarser++) {
    const scale = scales[coarser]!;
    const [column, row] = [Math.floor(x / scale.factor), Math.floor(y / scale.factor)];
    if (column < 0 || row < 0 || column >= scale.width || row >= scale.height) return 0;
    const [tileColumn, tileRow] = [Math.floor(column / tile), Math.floor(row / tile)];
    const found = tileAt(coarser, tileColumn, tileRow);
    if (found !== undefined) return found.labels[(row - tileRow * tile) * found.width + column - tileColumn * tile]!;
  }
  return UNKNOWN;
}

/** Return the pixel of the level under every pixel of the screen along one axis; -1 outside of the image. */
function places(start: number, step: number, count: number, factor: number, size: number): Int32Array {
  const found = new Int32Array(count);
  for (let place = 0; place < count; place++) {
    const at = Math.floor((start + (place + 0.5) * step) / factor);
    found[place] = at < 0 || at >= size ? -1 : at;
  }
  return found;
}

/** Return the stretches of pixels that lie in one tile. */
function runsOf(columns: Int32Array, tile: number): Run[] {
  const runs: Run[] = [];
  columns.forEach((place, x) => {
    const column = place < 0 ? -1 : Math.floor(place / tile);
    const last = runs.at(-1);
    if (last?.column === column) last.to = x + 1;
    else runs.push({ column, from: x, to: x + 1 });
  });
  return runs;
}
