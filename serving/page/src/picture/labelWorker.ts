/** Draws labels outside of the main thread, so that the page stays smooth with any number of objects. */

import { asRefusal } from "../service/refusal";
import { holdToken } from "../service/session";
import type { FromWorker, LabelTiles, Raster, ToWorker } from "./labelMessages";
import { forgetFailures, lookup, want } from "./labelTiles";
import type { TileName } from "./labelTiles";
import type { Scale } from "./levels";
import { levelFor, scalesOf } from "./levels";
import { paintLabels } from "./outlines";
import { labelAt, sampleLabels, UNKNOWN } from "./sampling";

type Drawing = Extract<ToWorker, { type: "draw" }>;

// Tiles arrive in groups; a drawing for each of them would be most of the work.
const GROUP_MILLISECONDS = 40;

let drawing: Drawing | null = null;
let colours: Uint32Array | null = null;
let scales: Scale[] = [];
let labels = new Uint32Array(0);
let timer: ReturnType<typeof setTimeout> | null = null;
let asked = "";

const post = (message: FromWorker, transfer: Transferable[] = []): void => self.postMessage(message, { transfer });

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  switch (data.type) {
    case "session":
      holdToken(data.token);
      forgetFailures();
      break;
    case "colours":
      colours = data.colours;
      break;
    case "draw":
      begin(data);
      break;
    case "label":
      post({
        type: "label",
        number: data.number,
        label: drawing === null ? 0 : labelUnder(drawing.tiles, data.x, data.y),
      });
      break;
  }
};

function begin(next: Drawing): void {
  const place = JSON.stringify([next.tiles, next.raster]);
  // A place that is looked at anew is worth another try.
  if (place !== asked) forgetFailures();
  asked = place;
  drawing = next;
  scales = scalesOf(next.tiles.levels, next.tiles.tile);
  draw(next);
}

function draw({ number, tiles, style, raster }: Drawing): void {
  const level = levelFor(scales, raster.step);
  const names = tilesUnder(raster, scales[level]!, level, tiles.tile);
  want(tiles, scales, names, drawSoon, report);
  const size = raster.width * raster.height;
  if (labels.length < size) labels = new Uint32Array(size);
  sampleLabels(labels, raster, scales, level, tiles.tile, lookup(tiles));
  const pixels = new Uint32Array(size);
  paintLabels(pixels, labels, raster.width, raster.height, style, colours);
  const image = new ImageData(new Uint8ClampedArray(pixels.buffer), raster.width, raster.height);
  void createImageBitmap(image).then((bitmap) => post({ type: "drawn", number, raster, bitmap }, [bitmap]));
}

function drawSoon(): void {
  timer ??= setTimeout(() => {
    timer = null;
    if (drawing !== null) draw(drawing);
  }, GROUP_MILLISECONDS);
}

function report(error: unknown): void {
  const { message, hint, status } = asRefusal(error);
  post({ type: "failed", message, hint, status });
}

function labelUnder(tiles: LabelTiles, x: number, y: number): number {
  const label = labelAt(x, y, scales, 0, tiles.tile, lookup(tiles));
  return label === UNKNOWN ? 0 : label;
}

function tilesUnder(raster: Raster, scale: Scale, level: number, tile: number): TileName[] {
  const range = (start: number, count: number, most: number): number[] => {
    const first = Math.max(0, Math.floor(start / scale.factor / tile));
    const last = Math.min(most - 1, Math.floor((start + count * raster.step) / scale.factor / tile));
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, place) => first + place);
  };
  const columns = range(raster.x, raster.width, scale.columns);
  const rows = range(raster.y, raster.height, scale.rows);
  return rows.flatMap((row) => columns.map((column) => ({ level, column, row })));
}
