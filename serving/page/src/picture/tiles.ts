/** Fetches the tiles of images and keeps the recent ones. */

import { request } from "../service/request";
import type { GreyTile } from "./compose";
import { Recent } from "./recent";

export interface TilePlace {
  address: string;
  level: number;
  column: number;
  row: number;
  t: number;
  z: number;
}

const MEGABYTES_KEPT = 64;
const kept = new Recent<GreyTile>(MEGABYTES_KEPT * 2 ** 20, (tile) => tile.pixels.length);

/**
 * Return the tile of one channel.
 *
 * With `exact` it has these very limits; otherwise a kept tile with other limits will do.
 */
export async function greyTile(
  place: TilePlace,
  channel: number,
  limits: { low: number; high: number; exact: boolean },
  signal: AbortSignal,
): Promise<GreyTile> {
  const { address, level, column, row, t, z } = place;
  const key = [address, level, column, row, channel, t, z].join(" ");
  const found = kept.get(key);
  if (found !== undefined && (!limits.exact || (found.low === limits.low && found.high === limits.high))) return found;
  const query = `c=${channel}&t=${t}&z=${z}&low=${limits.low}&high=${limits.high}`;
  const bitmap = await bitmapAt(`${address}/tiles/${level}/${column}/${row}?${query}`, signal);
  const tile = { ...greyPixels(bitmap), low: limits.low, high: limits.high };
  kept.set(key, tile);
  return tile;
}

/** Return the tile of an image in natural colours. */
export function colourTile(
  { address, level, column, row, t, z }: TilePlace,
  signal: AbortSignal,
): Promise<ImageBitmap> {
  return bitmapAt(`${address}/tiles/${level}/${column}/${row}?t=${t}&z=${z}`, signal);
}

function bitmapAt(path: string, signal: AbortSignal): Promise<ImageBitmap> {
  return request(path, async (response) => createImageBitmap(await response.blob(), { colorSpaceConversion: "none" }), {
    signal,
  });
}

function greyPixels(bitmap: ImageBitmap): Pick<GreyTile, "width" | "height" | "pixels"> {
  const { width, height } = bitmap;
  const context = newContext(width, height, { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const pixels = new Uint8Array(width * height);
  for (let place = 0; place < pixels.length; place++) pixels[place] = rgba[4 * place]!;
  return { width, height, pixels };
}

export function newContext(
  width: number,
  height: number,
  settings?: CanvasRenderingContext2DSettings,
): CanvasRenderingContext2D {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", settings);
  if (context === null) throw new Error("the browser has no memory left for pictures");
  return context;
}
