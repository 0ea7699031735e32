import type { ReactElement } from "react";
import { useState } from "react";

import { Busy } from "../parts/Busy";
import { Notice } from "../parts/Notice";
import { useAction } from "../parts/useAction";
import { plural } from "../parts/words";
import { deleteAnswer, getFile } from "../service/calls";
import type { ModelStatus, StoredAnswer } from "../service/contract";
import { isClasses, isLineage, sentence } from "../service/contract";
import { formName, suffixOf } from "./forms";

interface Props {
  answer: StoredAnswer;
  model: ModelStatus | undefined;
  onDeleted: () => void;
}

/** What the model answered in short, its warnings, and its files. */
export function AnswerPanel({ answer, model, onDeleted }: Props): ReactElement {
  const action = useAction();
  const forms = model?.media_types ?? [];
  const [form, setForm] = useState("");
  const chosen = forms.includes(form) ? form : (forms[0] ?? "");
  const download = (): void =>
    void action.run("Preparing the file", async () => {
      const file = await getFile(answer, chosen);
      save(file.content, file.name || `${answer.model.name}${suffixOf(chosen)}`);
    });
  const remove = (): void =>
    void action.run("Deleting the answer", async () => {
      await deleteAnswer(answer);
      onDeleted();
    });
  return (
    <section className="panel" aria-labelledby="answer-title">
      <h2 id="answer-title">{summary(answer)}</h2>
      <p className="hint">
        {answer.model.name}
        {answer.model.version !== null && `, version ${answer.model.version}`}, {answer.seconds.toPrecision(2)} s
      </p>
      {answer.warnings.length > 0 && (
        <ul className="warnings" aria-label="Warnings">
          {answer.warnings.map((warning) => (
            <li key={sentence(warning)}>{sentence(warning)}</li>
          ))}
        </ul>
      )}
      {forms.length > 0 ? (
        <div className="fields">
          <select aria-label="Form of the file" value={chosen} onChange={(event) => setForm(event.target.value)}>
            {forms.map((mediaType) => (
              <option key={mediaType} value={mediaType}>
                {formName(mediaType, answer.kind)}
              </option>
            ))}
          </select>
          <button type="button" onClick={download} disabled={action.busy !== null}>
            Download
          </button>
        </div>
      ) : (
        <p className="hint">The model does not answer any more, so its files cannot be made.</p>
      )}
      <button type="button" className="quiet" onClick={remove} disabled={action.busy !== null}>
        Delete this answer
      </button>
      {action.busy !== null && <Busy label={action.busy} />}
      {action.refusal && <Notice refusal={action.refusal} onRetry={action.retry} />}
    </section>
  );
}

function summary({ kind, objects }: StoredAnswer): string {
  if (isLineage(kind)) return plural(objects, "track");
  if (isClasses(kind)) return plural(objects, "cell");
  return kind === "image" ? "Predicted image" : plural(objects, "object");
}

/** Let the browser store a file: fetched with the token, which a plain link would not send. */
function save(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
