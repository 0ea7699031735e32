import { expect, test } from "vitest";

import type { Edit, RecordedEdit } from "../service/datasets";
import { stepsOf } from "./history";

const recorded = (...edits: Edit[]): RecordedEdit[] =>
  edits.map((edit, place) => ({ number: place + 1, who: "ada", when: "2026-12-01T10:00:00Z", base: place, edit }));
const remove: Edit = { op: "delete", labels: [3] };

test("an undo takes back the newest edit in force", () => {
  expect(stepsOf(recorded(remove, remove), "ada")).toEqual({ undo: 2, redo: null });
  expect(stepsOf(recorded(remove, remove, { op: "undo", edit: 2 }), "ada")).toEqual({ undo: 1, redo: 2 });
});

test("undo reaches to the first edit, and redo goes the same way back", () => {
  const all = recorded(remove, remove, { op: "undo", edit: 2 }, { op: "undo", edit: 1 });
  expect(stepsOf(all, "ada")).toEqual({ undo: null, redo: 1 });
  expect(stepsOf([...all, ...recorded({ op: "redo", edit: 1 })], "ada")).toEqual({ undo: 1, redo: 2 });
});

test("a new edit ends what could be redone", () => {
  expect(stepsOf(recorded(remove, { op: "undo", edit: 1 }, remove), "ada")).toEqual({ undo: 3, redo: null });
});

test("a person does not undo the edits of another one", () => {
  const theirs = recorded(remove).map((one) => ({ ...one, number: 2, who: "bob" }));
  expect(stepsOf([...recorded(remove), ...theirs], "ada")).toEqual({ undo: 1, redo: null });
  expect(stepsOf(theirs, "ada")).toEqual({ undo: null, redo: null });
});
