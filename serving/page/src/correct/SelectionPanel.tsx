import type { ReactElement } from "react";
import { useState } from "react";

import { Field } from "../parts/Field";
import { plural } from "../parts/words";
import type { Edit } from "../service/datasets";

interface Props {
  selected: number[];
  planes: number;
  t: number;
  z: number;
  onEdit: (edit: Edit) => void;
}

/** What can be done with the selected objects. */
export function SelectionPanel({ selected, planes, t, z, onEdit }: Props): ReactElement {
  const [name, setName] = useState("");
  const [last, setLast] = useState(String(planes));
  const none = selected.length === 0;
  const label = selected.length === 1 ? selected[0]! : null;
  const to = Number(last) - 1;
  return (
    <section className="panel" aria-labelledby="selection-title">
      <h2 id="selection-title">{none ? "No object is selected" : `${plural(selected.length, "object")} selected`}</h2>
      <div className="line tools">
        <button
          type="button"
          className="danger"
          disabled={none}
          onClick={() => onEdit({ op: "delete", labels: selected })}
        >
          Delete
        </button>
        <button type="button" disabled={selected.length < 2} onClick={() => onEdit({ op: "merge", labels: selected })}>
          Merge
        </button>
      </div>
      <form
        className="fields"
        onSubmit={(event) => {
          event.preventDefault();
          onEdit({ op: "class", labels: selected, class: name.trim() });
        }}
      >
        <Field label="Class">
          <input type="text" required maxLength={64} value={name} onChange={(event) => setName(event.target.value)} />
        </Field>
        <button type="submit" disabled={none}>
          Set the class
        </button>
      </form>
      {planes > 1 && (
        <>
          <button
            type="button"
            disabled={label === null || z + 1 >= planes}
            onClick={() => onEdit({ op: "copy_plane", label: label!, t, from: z, to: z + 1 })}
          >
            Copy to the next plane
          </button>
          <Field label={`Fill the planes from ${z + 1} to`}>
            <input
              type="number"
              min={z + 3}
              max={planes}
              value={last}
              onChange={(event) => setLast(event.target.value)}
            />
          </Field>
          <button
            type="button"
            disabled={label === null || !(to > z + 1 && to < planes)}
            onClick={() => onEdit({ op: "interpolate", label: label!, t, from: z, to })}
          >
            Interpolate
          </button>
        </>
      )}
    </section>
  );
}
