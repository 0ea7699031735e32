import type { FormEvent, ReactElement } from "react";
import { useState } from "react";

import { Busy } from "../parts/Busy";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { goTo, routeTo } from "../parts/route";
import { useAction } from "../parts/useAction";
import { useLoaded } from "../parts/useLoaded";
import { plural } from "../parts/words";
import { getDataSets, makeDataSet } from "../service/datasets";

/** The data sets of the person, and a form for a new one. */
export function DataSetList(): ReactElement {
  const sets = useLoaded("datasets", getDataSets);
  const action = useAction();
  const [name, setName] = useState("");
  const make = (event: FormEvent): void => {
    event.preventDefault();
    void action.run("Making the data set", async () => {
      const made = await makeDataSet(name.trim());
      goTo("correct", made.name);
    });
  };
  return (
    <div className="correct">
      <h1>Data sets</h1>
      <p className="hint">A data set is a list of images with corrected objects, from which a model learns.</p>
      {sets.refusal && <Notice refusal={sets.refusal} onRetry={sets.reload} />}
      {sets.value === null && sets.refusal === null && <Busy label="Loading the data sets" />}
      {sets.value?.length === 0 && <p>No data sets yet.</p>}
      <ul className="cards">
        {sets.value?.map((one) => (
          <li key={one.name} className="panel">
            <h2>
              <a href={routeTo("correct", one.name)}>{one.name}</a>
            </h2>
            <p>
              {plural(one.items, "image")}, {one.finished} with finished regions
            </p>
            <p className="hint">
              {one.splits.train ?? 0} train, {one.splits.val ?? 0} validate; owner {one.owner}
              {one.team !== null && `, team ${one.team}`}
            </p>
          </li>
        ))}
      </ul>
      <form className="panel" onSubmit={make}>
        <h2>New data set</h2>
        <Field label="Name">
          <input type="text" required maxLength={100} value={name} onChange={(event) => setName(event.target.value)} />
        </Field>
        <button type="submit" className="main" disabled={action.busy !== null}>
          Make the data set
        </button>
        {action.refusal && <Notice refusal={action.refusal} onRetry={action.retry} />}
      </form>
    </div>
  );
}
