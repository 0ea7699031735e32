import type { FormEvent, ReactElement } from "react";
import { useState } from "react";

import { Busy } from "../parts/Busy";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { useAction } from "../parts/useAction";
import { useLoaded } from "../parts/useLoaded";
import { moment } from "../parts/words";
import { getAnswers, getImages } from "../service/calls";
import { hasLabels, isLineage } from "../service/contract";
import { addItem } from "../service/datasets";

/** Copies one of the person's images into the data set, with the objects of an answer. */
export function AddItem({ name, onAdded }: { name: string; onAdded: () => void }): ReactElement {
  const images = useLoaded("images", getImages);
  const [image, setImage] = useState("");
  const [answer, setAnswer] = useState("");
  const [group, setGroup] = useState("");
  const answers = useLoaded(image === "" ? null : image, () => getAnswers(image));
  const action = useAction();
  const labelled = answers.value?.filter((one) => hasLabels(one.kind) && !isLineage(one.kind)) ?? [];
  const add = (event: FormEvent): void => {
    event.preventDefault();
    void action.run("Copying the image", async () => {
      await addItem(name, image, answer || null, group.trim() || null);
      onAdded();
    });
  };
  return (
    <form className="panel" onSubmit={add}>
      <h2>Add an image</h2>
      {images.refusal && <Notice refusal={images.refusal} onRetry={images.reload} />}
      <Field label="Image">
        <select
          required
          value={image}
          onChange={(event) => {
            setImage(event.target.value);
            setAnswer("");
          }}
        >
          <option value="">choose one of your images</option>
          {images.value?.map((one) => (
            <option key={one.id} value={one.id}>
              {one.name}
            </option>
          ))}
        </select>
      </Field>
      <Field label="Objects to begin with">
        <select value={answer} onChange={(event) => setAnswer(event.target.value)}>
          <option value="">none</option>
          {labelled.map((one) => (
            <option key={one.id} value={one.id}>
              {`${one.model.name}, ${moment(one.created)}`}
            </option>
          ))}
        </select>
      </Field>
      <Field label="Recording, if it is one of several images of the same cells">
        <input
          type="text"
          maxLength={100}
          placeholder="movie 3"
          value={group}
          onChange={(event) => setGroup(event.target.value)}
        />
      </Field>
      <button type="submit" className="main" disabled={action.busy !== null || image === ""}>
        Add
      </button>
      {action.busy !== null && <Busy label={action.busy} />}
      {(action.refusal ?? answers.refusal) && (
        <Notice
          refusal={(action.refusal ?? answers.refusal)!}
          onRetry={action.refusal ? action.retry : answers.reload}
        />
      )}
    </form>
  );
}
