/** What a person asks a model, before it becomes the question that is sent. */

import type { ModelStatus, Question, StoredImage } from "../service/contract";

export interface Choice {
  model: string;
  /** Empty: the version that the service answers with. */
  version: string;
  /** One for each channel of the model; empty: the service chooses. */
  channels: string[];
  /** "shown", or what the service takes; empty: all. */
  plane: string;
  frame: string;
  size: "file" | "auto" | "number";
  diameter: string;
  pixelSize: string;
}

/** Return the choice to begin with for a model and an image. */
export function firstChoice(model: ModelStatus | undefined): Choice {
  const flat = model === undefined || !model.axes.includes("Z");
  const still = model === undefined || !model.axes.includes("T");
  return {
    model: model?.name ?? "",
    version: "",
    channels: [],
    plane: flat ? "shown" : "",
    frame: still ? "shown" : "",
    size: "file",
    diameter: "30",
    pixelSize: "",
  };
}

/** Return the question to send. */
export function questionOf(choice: Choice, image: StoredImage, shown: { t: number; z: number }): Question {
  const channels = choice.channels.filter((name) => name !== "");
  return {
    model: choice.model,
    version: choice.version.trim() || null,
    channel: channels.length === 0 ? null : channels.length === 1 ? channels[0]! : channels,
    plane: along(image.axes.Z, choice.plane, shown.z),
    frame: along(image.axes.T, choice.frame, shown.t),
    diameter: choice.size === "file" ? null : choice.size === "auto" ? "auto" : Number(choice.diameter),
    pixel_size: choice.pixelSize.trim() || null,
  };
}

function along(count: number | undefined, chosen: string, shown: number): string | null {
  if ((count ?? 1) === 1 || chosen === "") return null;
  return chosen === "shown" ? String(shown) : chosen;
}

/** A plane or frame that a question names; null if the answer is about all. */
export function answeredPlace(text: string | number | null): number | null {
  return text !== null && /^\d+$/.test(String(text)) ? Number(text) : null;
}
