import type { ReactElement } from "react";

import { Field } from "../parts/Field";
import type { ModelStatus, StoredImage } from "../service/contract";

interface Props {
  image: StoredImage;
  model: ModelStatus;
  chosen: string[];
  onChange: (chosen: string[]) => void;
}

/** Which channel of the image is which channel of the model. */
export function ChannelChoice({ image, model, chosen, onChange }: Props): ReactElement {
  const wanted = model.grey_as_rgb || model.channels.length === 0 ? ["Channel"] : model.channels;
  const set = (index: number, name: string): void =>
    onChange(wanted.map((_, place) => (place === index ? name : (chosen[place] ?? ""))));
  return (
    <>
      {wanted.map((name, index) => (
        <Field key={name} label={wanted.length === 1 ? "Channel" : `Channel for ${name}`}>
          <select value={chosen[index] ?? ""} onChange={(event) => set(index, event.target.value)}>
            <option value="">the service chooses</option>
            {image.channels.map((channel) => (
              <option key={channel.name}>{channel.name}</option>
            ))}
          </select>
        </Field>
      ))}
    </>
  );
}
