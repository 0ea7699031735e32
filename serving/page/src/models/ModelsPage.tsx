import type { ReactElement } from "react";

import { Busy } from "../parts/Busy";
import { Notice } from "../parts/Notice";
import { useLoaded } from "../parts/useLoaded";
import { moment } from "../parts/words";
import { getModels } from "../service/calls";
import type { ModelStatus } from "../service/contract";

const KINDS: Record<string, string> = {
  labels: "finds every object",
  image: "predicts an image",
  class: "names the class of every cell",
  lineage: "follows cells through time",
};

/** All models that answer, with their facts. */
export function ModelsPage(): ReactElement {
  const models = useLoaded("models", getModels);
  return (
    <div className="models">
      <h1>Models</h1>
      {models.refusal && <Notice refusal={models.refusal} onRetry={models.reload} />}
      {models.value === null && models.refusal === null && <Busy label="Loading the models" />}
      {models.value?.length === 0 && <p>No model answers here.</p>}
      <ul className="cards">
        {models.value?.map((model) => (
          <ModelCard key={`${model.reference} ${model.version}`} model={model} />
        ))}
      </ul>
    </div>
  );
}

function ModelCard({ model }: { model: ModelStatus }): ReactElement {
  return (
    <li className="panel">
      <h2>
        {model.name} {model.version !== null && <span className="hint">version {model.version}</span>}
      </h2>
      <p>{KINDS[model.kind] ?? model.kind}</p>
      <dl>
        {factsOf(model).map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </li>
  );
}

function factsOf(model: ModelStatus): [string, string][] {
  const size =
    model.pixel_size === null ? null : Object.entries(model.pixel_size).map(([axis, value]) => `${axis} ${value}`);
  const facts: [string, string | null][] = [
    ["Task", model.task],
    ["Input axes", model.axes],
    ["Channels", model.channels.join(", ") + (model.grey_as_rgb ? " (a grey image is used for each)" : "")],
    ["Pixel size (µm)", size?.join(", ") ?? "any"],
    ["Follows", model.reference],
    ["Steps before", model.steps.join(", ")],
    ["Canary", model.canary],
    ["Shadow", model.shadow],
    ["Answers since", moment(model.loaded)],
    ["Registry", model.registry],
    ["Digest", model.digest.slice(0, 12)],
  ];
  return facts.filter((fact): fact is [string, string] => Boolean(fact[1]));
}
