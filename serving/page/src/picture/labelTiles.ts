/** Fetches label tiles in the worker and keeps the recent ones. */

import { isCancelled } from "../service/refusal";
import { request } from "../service/request";
import type { LabelTiles } from "./labelMessages";
import type { Scale } from "./levels";
import { Recent } from "./recent";
import type { LabelTile, TileAt } from "./sampling";

export interface TileName {
  level: number;
  column: number;
  row: number;
}

const MEGABYTES_KEPT = 96;
const AT_ONCE = 6; // as many as a browser opens connections to a host
const TRIES = 2;

interface KeptTile extends LabelTile {
  revision: number;
}

const kept = new Recent<KeptTile>(MEGABYTES_KEPT * 2 ** 20, (tile) => tile.labels.byteLength);
const running = new Map<string, AbortController>();
const failures = new Map<string, number>();
let queue: { key: string; start: () => void }[] = [];

/** Return the kept tiles. One of an earlier revision stands in until the new one is there: edits do not flicker. */
export function lookup(tiles: LabelTiles): TileAt {
  return (level, column, row) => kept.get(keyOf(tiles, { level, column, row }));
}

/**
 * Fetch the tiles that are missing, and stop fetching all others.
 *
 * @param onChange called when a tile has arrived
 * @param onError called when a tile could not be fetched
 */
export function want(
  tiles: LabelTiles,
  scales: Scale[],
  names: TileName[],
  onChange: () => void,
  onError: (error: unknown) => void,
): void {
  const missing = names.filter((name) => kept.get(keyOf(tiles, name))?.revision !== tiles.revision);
  const keys = new Set(missing.map((name) => loadKey(tiles, name)));
  for (const [key, abort] of running) if (!keys.has(key)) abort.abort();
  queue = missing
    .map((name) => ({ key: loadKey(tiles, name), start: () => void load(tiles, scales, name, onChange, onError) }))
    .filter(({ key }) => !running.has(key) && (failures.get(key) ?? 0) < TRIES);
  startNext();
}

/** Let tiles be tried again that could not be fetched. */
export function forgetFailures(): void {
  failures.clear();
}

function startNext(): void {
  while (running.size < AT_ONCE && queue.length > 0) queue.shift()!.start();
}

async function load(
  tiles: LabelTiles,
  scales: Scale[],
  name: TileName,
  onChange: () => void,
  onError: (error: unknown) => void,
): Promise<void> {
  const key = loadKey(tiles, name);
  const abort = new AbortController();
  running.set(key, abort);
  try {
    // The revision keeps the browser from answering with what it cached of an earlier one.
    const query = `t=${tiles.t}&z=${tiles.z}&revision=${tiles.revision}`;
    const path = `${tiles.address}/${name.level}/${name.column}/${name.row}?${query}`;
    const bytes = await request(path, (response) => response.arrayBuffer(), { signal: abort.signal });
    const width = Math.min(tiles.tile, scales[name.level]!.width - name.column * tiles.tile);
    kept.set(keyOf(tiles, name), { width, labels: new Uint32Array(bytes), revision: tiles.revision });
    failures.delete(key);
  } catch (error) {
    if (!isCancelled(error)) {
      failures.set(key, (failures.get(key) ?? 0) + 1);
      onError(error);
    }
  } finally {
    running.delete(key);
    startNext();
    onChange();
  }
}

function keyOf(tiles: LabelTiles, { level, column, row }: TileName): string {
  return `${tiles.address} ${tiles.t} ${tiles.z} ${level} ${column} ${row}`;
}

function loadKey(tiles: LabelTiles, name: TileName): string {
  return `${tiles.revision} ${keyOf(tiles, name)}`;
}
