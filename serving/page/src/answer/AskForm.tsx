import type { FormEvent, ReactElement } from "react";
import { useEffect, useState } from "react";

import { Busy } from "../parts/Busy";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { useAction } from "../parts/useAction";
import type { Loaded } from "../parts/useLoaded";
import { ask } from "../service/calls";
import type { ModelStatus, StoredAnswer, StoredImage } from "../service/contract";
import { Refusal } from "../service/refusal";
import { ChannelChoice } from "./ChannelChoice";
import { firstChoice, questionOf } from "./question";
import type { Choice } from "./question";

interface Props {
  image: StoredImage;
  models: Loaded<ModelStatus[]>;
  shown: { t: number; z: number };
  onAnswer: (answer: StoredAnswer) => void;
}

/** Asks a model about the image. */
export function AskForm({ image, models, shown, onAnswer }: Props): ReactElement {
  const list = models.value ?? [];
  const [choice, setChoice] = useState<Choice>(() => firstChoice(list[0]));
  const action = useAction();
  const change = (part: Partial<Choice>): void => setChoice((before) => ({ ...before, ...part }));
  const entries = list.filter((one) => one.name === choice.model);
  const model = entries.find((one) => one.version === choice.version) ?? entries[0];
  // The first model is chosen once the list is there, and again if the chosen one went away.
  useEffect(() => {
    if (list.length > 0 && model === undefined) setChoice(firstChoice(list[0]));
  }, [list, model]);

  const submit = (event: FormEvent): void => {
    event.preventDefault();
    void action.run(`${choice.model} looks at the image`, async (signal) => {
      try {
        onAnswer(await ask(image.id, questionOf(choice, image, shown), signal));
      } catch (error) {
        if (error instanceof Refusal && error.status === 404) models.reload();
        throw error;
      }
    });
  };
  const names = [...new Set(list.map((one) => one.name))];
  return (
    <section className="panel" aria-labelledby="ask-title">
      <h2 id="ask-title">Ask a model</h2>
      {models.refusal && <Notice refusal={models.refusal} onRetry={models.reload} />}
      {models.value === null && models.refusal === null && <Busy label="Loading the models" />}
      {models.value?.length === 0 && <p>No model answers here.</p>}
      {model !== undefined && (
        <form className="fields" onSubmit={submit}>
          <Field label="Model">
            <select
              value={choice.model}
              onChange={(event) => setChoice(firstChoice(list.find((one) => one.name === event.target.value)))}
            >
              {names.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </Field>
          <Field label="Version">
            <select value={choice.version} onChange={(event) => change({ version: event.target.value })}>
              <option value="">{`in use: ${entries[0]?.version ?? "without a number"}`}</option>
              {entries
                .filter((one) => one.version !== null)
                .map((one) => (
                  <option key={one.reference} value={one.version!}>{`${one.version} (${one.reference})`}</option>
                ))}
            </select>
          </Field>
          {!image.rgb && image.channels.length > 1 && (
            <ChannelChoice
              image={image}
              model={model}
              chosen={choice.channels}
              onChange={(channels) => change({ channels })}
            />
          )}
          <PlaneFields {...{ image, choice, change, shown }} />
          <SizeFields {...{ image, choice, change }} />
          <button type="submit" className="main" disabled={action.busy !== null}>
            Ask
          </button>
        </form>
      )}
      {action.busy !== null && <Busy label={action.busy} onCancel={action.cancel} />}
      {action.refusal && <Notice refusal={action.refusal} onRetry={action.retry} />}
    </section>
  );
}

interface PartProps {
  image: StoredImage;
  choice: Choice;
  change: (part: Partial<Choice>) => void;
}

function PlaneFields({ image, choice, change, shown }: PartProps & { shown: { t: number; z: number } }): ReactElement {
  return (
    <>
      {(image.axes.Z ?? 1) > 1 && (
        <Field label="Planes">
          <select value={choice.plane} onChange={(event) => change({ plane: event.target.value })}>
            <option value="shown">the plane in view ({shown.z + 1})</option>
            <option value="">all, as one volume</option>
            <option value="max">the brightest value of all planes</option>
            <option value="each">each plane for itself</option>
            <option value="stitch">each plane, then join the objects</option>
          </select>
        </Field>
      )}
      {(image.axes.T ?? 1) > 1 && (
        <Field label="Frames">
          <select value={choice.frame} onChange={(event) => change({ frame: event.target.value })}>
            <option value="shown">the frame in view ({shown.t + 1})</option>
            <option value="">all, as one movie</option>
            <option value="each">each frame for itself</option>
          </select>
        </Field>
      )}
    </>
  );
}

function SizeFields({ image, choice, change }: PartProps): ReactElement {
  const known = typeof image.pixel_size.Y === "number";
  return (
    <>
      <Field label="Size of objects">
        <select value={choice.size} onChange={(event) => change({ size: event.target.value as Choice["size"] })}>
          <option value="file">{known ? "by the pixel size of the file" : "do not change the image"}</option>
          <option value="auto">measure it</option>
          <option value="number">a number of pixels</option>
        </select>
      </Field>
      {choice.size === "number" && (
        <Field label="Usual width in pixels">
          <input
            type="number"
            min={1}
            max={10000}
            step="any"
            required
            value={choice.diameter}
            onChange={(event) => change({ diameter: event.target.value })}
          />
        </Field>
      )}
      {!known && choice.size === "file" && (
        <Field label="Pixel size in µm, if you know it">
          <input
            type="text"
            inputMode="decimal"
            placeholder="0.5"
            value={choice.pixelSize}
            onChange={(event) => change({ pixelSize: event.target.value })}
          />
        </Field>
      )}
    </>
  );
}
