/** The JSON of the service, as far as the page uses it. */

export interface Me {
  name: string;
  scopes: string[];
  team: string | null;
  teams: string[];
  models: string[] | null;
  administers: boolean;
  tokens: boolean;
  limits?: { body_megabytes: number };
}

export interface ModelStatus {
  name: string;
  version: string | null;
  digest: string;
  reference: string;
  task: string;
  kind: string;
  media_types: string[];
  axes: string;
  channels: string[];
  grey_as_rgb: boolean;
  pixel_size: Record<string, number> | null;
  steps: string[];
  canary: string | null;
  shadow: string | null;
  loaded: string;
  registry: string;
}

export interface Channel {
  name: string;
  low: number;
  high: number;
  min: number;
  max: number;
}

export interface Level {
  width: number;
  height: number;
}

export type Axes = Partial<Record<"T" | "C" | "Z" | "Y" | "X", number>>;

export interface StoredImage {
  id: string;
  name: string;
  owner: string;
  created: string;
  expires: string;
  bytes: number;
  axes: Axes;
  pixel_size: Partial<Record<"Z" | "Y" | "X", number | null>>;
  channels: Channel[];
  rgb: boolean;
  levels: Level[];
  tile: number;
  warnings: AnswerWarning[];
}

export type AnswerWarning = string | { code: string; sentence: string };

export interface Question {
  model: string;
  version: string | null;
  channel: string | string[] | null;
  plane: string | null;
  frame: string | null;
  diameter: number | "auto" | null;
  pixel_size: string | null;
}

export interface StoredAnswer {
  id: string;
  image: string;
  kind: string;
  model: { name: string; version: string | null };
  question: Question;
  created: string;
  objects: number;
  warnings: AnswerWarning[];
  seconds: number;
  levels: Level[];
  tile: number;
  columns: string[];
  /** The predicted channels; only for answers of the kind image. */
  channels?: Channel[];
}

export type Value = number | string | boolean | null;

export interface Objects {
  columns: string[];
  rows: Value[][];
}

/** The words of a warning. */
export function sentence(warning: AnswerWarning): string {
  return typeof warning === "string" ? warning : warning.sentence;
}

/** Whether an answer is about the pixels of the image: its tiles are numbers of objects or of tracks. */
export function hasLabels(kind: string): boolean {
  return kind === "labels" || isLineage(kind);
}

export function isLineage(kind: string): boolean {
  return kind === "lineage" || kind === "lineages";
}

export function isClasses(kind: string): boolean {
  return kind === "class" || kind === "classes";
}
