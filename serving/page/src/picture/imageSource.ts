import OpenSeadragon from "openseadragon";

import type { Channel, Level } from "../service/contract";
import { isCancelled } from "../service/refusal";
import type { Appearance } from "./compose";
import { compose } from "./compose";
import type { Scale } from "./levels";
import { scalesOf } from "./levels";
import { colourTile, greyTile, newContext } from "./tiles";

/** A picture in tiles: an image, or an image that a model predicted. */
export interface Tiled {
  address: string;
  levels: Level[];
  tile: number;
  rgb: boolean;
  channels: Channel[];
}

/** What of a picture is shown, and how. */
export interface Look {
  t: number;
  z: number;
  /** One for each channel; null for a hidden one. */
  channels: (Appearance | null)[];
  /** False while a slider moves: tiles with other contrast limits are then stretched and not fetched again. */
  exact: boolean;
}

// OpenSeadragon takes tiles with the same address for the same picture, so every source has addresses of its own.
let sources = 0;

/** Return the source that OpenSeadragon takes its tiles from: fetched with the token, coloured here. */
export function imageSource(tiled: Tiled, look: Look, onError: (error: unknown) => void): OpenSeadragon.TileSource {
  const scales = scalesOf(tiled.levels, tiled.tile);
  const full = scales[0];
  if (full === undefined) throw new Error("the image has no levels");
  const highest = scales.length - 1;
  sources += 1;
  const prefix = sources;
  const source = new OpenSeadragon.TileSource({
    width: full.width,
    height: full.height,
    tileSize: tiled.tile,
    minLevel: 0,
    maxLevel: highest,
  } as OpenSeadragon.TileSourceOptions);
  // OpenSeadragon counts levels from the smallest, the service from the full size.
  const scaleAt = (level: number): Scale => scales[highest - level] ?? full;

  source.getLevelScale = (level) => 1 / scaleAt(level).factor;
  source.getNumTiles = (level) => new OpenSeadragon.Point(scaleAt(level).columns, scaleAt(level).rows);
  source.getTileUrl = (level, column, row) => `${prefix}/${highest - level}/${column}/${row}`;
  source.hasTransparency = () => false;
  source.downloadTileStart = (job) => {
    const abort = new AbortController();
    job.userData.abort = abort;
    const [, level = 0, column = 0, row = 0] = job.src.split("/").map(Number);
    draw(tiled, look, { level, column, row }, abort.signal).then(
      (context) => job.finish(context, null, "context2d"),
      (error) => {
        if (isCancelled(error)) return;
        onError(error);
        job.fail(String(error), null);
      },
    );
  };
  source.downloadTileAbort = (job) => (job.userData.abort as AbortController | undefined)?.abort();
  return source;
}

async function draw(
  tiled: Tiled,
  look: Look,
  at: { level: number; column: number; row: number },
  signal: AbortSignal,
): Promise<CanvasRenderingContext2D> {
  const place = { address: tiled.address, t: look.t, z: look.z, ...at };
  if (tiled.rgb) {
    const bitmap = await colourTile(place, signal);
    const context = newContext(bitmap.width, bitmap.height);
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    return context;
  }
  const layers = await Promise.all(
    look.channels.flatMap((appearance, channel) =>
      appearance === null
        ? []
        : [
            greyTile(place, channel, { ...appearance, exact: look.exact }, signal).then((tile) => ({
              tile,
              appearance,
            })),
          ],
    ),
  );
  const { width, height } = layers[0]?.tile ?? { width: tiled.tile, height: tiled.tile };
  const context = newContext(width, height);
  context.putImageData(new ImageData(compose(layers, width, height), width, height), 0, 0);
  return context;
}
