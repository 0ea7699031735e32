/** Data sets, their items and the edits of persons. */

import type { Axes, Level, Objects, StoredImage } from "./contract";
import { getJson, remove, request, sendJson } from "./request";

export interface DataSetStatus {
  name: string;
  owner: string;
  team: string | null;
  created: string;
  items: number;
  finished: number;
  splits: Record<string, number>;
  version: string;
  kind: string;
}

export type Point = [x: number, y: number];

/** A part of an image that is finished; null stands for all frames, all planes, the whole plane. */
export interface Region {
  t: number | null;
  z: number | null;
  outline: Point[] | null;
}

export interface ItemStatus {
  id: string;
  name: string;
  split: string;
  group: string | null;
  revision: number;
  axes: Axes;
  model: { name: string; version: string | null } | null;
  /** By the number of the region. */
  finished: Record<string, Region>;
  objects: number;
  least_certain: number | null;
  /** Of the labels. */
  levels: Level[];
  tile: number;
}

export type Edit =
  | { op: "delete"; labels: number[] }
  | { op: "add"; t: number; z: number; outline: Point[] }
  | { op: "paint"; label: number | null; t: number; z: number; stroke: Point[]; radius: number; erase: boolean }
  | { op: "merge"; labels: number[] }
  | { op: "split"; label: number; t: number; line: Point[] }
  | { op: "class"; labels: number[]; class: string }
  | { op: "copy_plane"; label: number; t: number; from: number; to: number }
  | { op: "interpolate"; label: number; t: number; from: number; to: number }
  | { op: "finish"; region: Region }
  | { op: "reopen"; region: number }
  | { op: "undo"; edit: number }
  | { op: "redo"; edit: number };

export interface RecordedEdit {
  /** Counts the edits of an item. */
  number: number;
  who: string;
  when: string;
  /** The revision that the edit was made on. */
  base: number;
  edit: Edit;
}

export interface Saved {
  revision: number;
  changed: [number, number, number, number] | null;
}

const address = (name: string): string => `/datasets/${encodeURIComponent(name)}`;

export function itemAddress(name: string, item: string): string {
  return `${address(name)}/items/${encodeURIComponent(item)}`;
}

export async function getDataSets(): Promise<DataSetStatus[]> {
  return (await getJson<{ datasets: DataSetStatus[] }>("/datasets")).datasets;
}

export const makeDataSet = (name: string): Promise<DataSetStatus> => sendJson("/datasets", { name });

export const deleteDataSet = (name: string): Promise<void> =>
  remove(`${address(name)}?confirm=${encodeURIComponent(name)}`);

export async function getItems(name: string): Promise<ItemStatus[]> {
  return (await getJson<{ items: ItemStatus[] }>(`${address(name)}/items`)).items;
}

export const getItem = (name: string, item: string): Promise<ItemStatus> => getJson(itemAddress(name, item));

/** The image of an item as a stored image of the person, whose tiles show it. */
export const openItemImage = (name: string, item: string): Promise<StoredImage> =>
  sendJson(`${itemAddress(name, item)}/image`, {}, { seconds: 120 });

export function addItem(name: string, image: string, answer: string | null, group: string | null): Promise<ItemStatus> {
  return sendJson(`${address(name)}/items`, { image, answer, group }, { seconds: 120 });
}

export async function getNext(name: string): Promise<string | null> {
  return (await getJson<{ item: string | null }>(`${address(name)}/next`)).item;
}

export function getItemObjects(name: string, item: string): Promise<Objects> {
  return getJson(`${itemAddress(name, item)}/labels/objects`, { seconds: 120 });
}

export async function getEdits(name: string, item: string): Promise<RecordedEdit[]> {
  return (await getJson<{ edits: RecordedEdit[] }>(`${itemAddress(name, item)}/edits`)).edits;
}

export function saveEdits(name: string, item: string, revision: number, edits: Edit[]): Promise<Saved> {
  return request(`${itemAddress(name, item)}/edits`, (response) => response.json() as Promise<Saved>, {
    method: "POST",
    body: JSON.stringify({ edits }),
    headers: { "Content-Type": "application/json", "If-Match": `"${revision}"` },
  });
}
