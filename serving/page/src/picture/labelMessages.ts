/** The messages between the page and the worker that draws labels. */

import type { Level } from "../service/contract";
import type { Refusal } from "../service/refusal";

export interface LabelTiles {
  /** Address up to the level: `{address}/{level}/{column}/{row}`. */
  address: string;
  levels: Level[];
  tile: number;
  t: number;
  z: number;
  /** Counts the changes of the labels behind the address; tiles of another revision are not used. */
  revision: number;
}

export interface LabelStyle {
  mode: "outlines" | "filled";
  opacity: number;
  /** Pixels of the screen. */
  lineWidth: number;
  selected: number[];
}

/** The part of the image that is drawn; one pixel of the drawing covers `step` pixels of the image. */
export interface Raster {
  x: number;
  y: number;
  step: number;
  width: number;
  height: number;
}

export type ToWorker =
  | { type: "session"; token: string | null }
  | { type: "colours"; colours: Uint32Array | null }
  | { type: "draw"; number: number; tiles: LabelTiles; style: LabelStyle; raster: Raster }
  | { type: "label"; number: number; x: number; y: number };

export type FromWorker =
  | { type: "drawn"; number: number; raster: Raster; bitmap: ImageBitmap }
  | { type: "label"; number: number; label: number }
  | { type: "failed"; message: string; hint: Refusal["hint"]; status: number };
