import type { FormEvent, ReactElement } from "react";
import { useState } from "react";

import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { goTo } from "../parts/route";
import { useAction } from "../parts/useAction";
import { deleteDataSet } from "../service/datasets";

/** Deletes the data set, if the person types its name. */
export function DeleteDataSet({ name }: { name: string }): ReactElement {
  const [typed, setTyped] = useState("");
  const action = useAction();
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    void action.run("Deleting the data set", async () => {
      await deleteDataSet(name);
      goTo("correct");
    });
  };
  return (
    <details className="panel">
      <summary>Delete this data set</summary>
      <form className="fields" onSubmit={submit}>
        <p>This deletes all its images and corrections. Type its name to confirm.</p>
        <Field label="Name of the data set">
          <input type="text" value={typed} onChange={(event) => setTyped(event.target.value)} />
        </Field>
        <button type="submit" className="danger" disabled={typed !== name || action.busy !== null}>
          Delete all of {name}
        </button>
        {action.refusal && <Notice refusal={action.refusal} onRetry={action.retry} />}
      </form>
    </details>
  );
}
