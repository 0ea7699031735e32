/** What can be undone and redone, and edits in words. */

import { plural } from "../parts/words";
import type { Edit, RecordedEdit } from "../service/datasets";

export interface Steps {
  /** The number of the edit that an undo takes back; null for none. */
  undo: number | null;
  redo: number | null;
}

/**
 * Return what an undo and a redo are about.
 *
 * An undo takes back the newest edit of this person that is in force. A redo brings back the one that was taken back last; an edit
 * after it ends that, as in every editor.
 */
export function stepsOf(edits: RecordedEdit[], person: string): Steps {
  const done: number[] = [];
  let undone: number[] = [];
  for (const { number, edit, who } of edits) {
    if (who !== person) continue;
    if (edit.op === "undo") {
      const place = done.lastIndexOf(edit.edit);
      if (place >= 0) done.splice(place, 1);
      undone.push(edit.edit);
    } else if (edit.op === "redo") {
      undone = undone.filter((one) => one !== edit.edit);
      done.push(edit.edit);
    } else {
      done.push(number);
      undone = [];
    }
  }
  return { undo: done.at(-1) ?? null, redo: undone.at(-1) ?? null };
}

/** An edit as one says it. */
export function editInWords(edit: Edit): string {
  switch (edit.op) {
    case "delete":
      return `deleted ${plural(edit.labels.length, "object")} (${shortened(edit.labels)})`;
    case "add":
      return "added an object";
    case "paint":
      if (edit.label === null) return "painted a new object";
      return edit.erase ? `erased a part of object ${edit.label}` : `painted object ${edit.label}`;
    case "merge":
      return `merged the objects ${shortened(edit.labels)}`;
    case "split":
      return `split object ${edit.label}`;
    case "class":
      return `set the class of ${plural(edit.labels.length, "object")} to ${edit.class}`;
    case "copy_plane":
      return `copied object ${edit.label} to plane ${edit.to + 1}`;
    case "interpolate":
      return `filled object ${edit.label} from plane ${edit.from + 1} to ${edit.to + 1}`;
    case "finish":
      return "marked a region as finished";
    case "reopen":
      return `opened region ${edit.region} again`;
    case "undo":
      return `undid edit ${edit.edit}`;
    case "redo":
      return `redid edit ${edit.edit}`;
  }
}

function shortened(labels: number[]): string {
  return labels.length > 5 ? `${labels.slice(0, 5).join(", ")}, …` : labels.join(", ");
}
