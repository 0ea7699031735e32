import type { ReactElement } from "react";

import { goTo } from "../parts/route";
import { moment } from "../parts/words";
import type { StoredAnswer, StoredImage } from "../service/contract";

interface Props {
  image: StoredImage;
  answers: StoredAnswer[];
  current: string | undefined;
}

/** Chooses among the answers that the service keeps for the image. */
export function AnswerList({ image, answers, current }: Props): ReactElement {
  const choose = (id: string): void => (id === "" ? goTo("images", image.id) : goTo("images", image.id, "answers", id));
  const known = answers.some((one) => one.id === current);
  return (
    <section className="panel" aria-labelledby="answers-title">
      <h2 id="answers-title">Answers</h2>
      <select
        aria-labelledby="answers-title"
        value={known ? current : ""}
        onChange={(event) => choose(event.target.value)}
      >
        <option value="">none: the image alone</option>
        {answers.map((one) => (
          <option key={one.id} value={one.id}>
            {`${one.model.name}, ${moment(one.created)}`}
          </option>
        ))}
      </select>
    </section>
  );
}
