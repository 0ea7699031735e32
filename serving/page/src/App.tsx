import type { ReactElement } from "react";
import { useCallback, useEffect, useState } from "react";

import { AnswerPage } from "./answer/AnswerPage";
import { CorrectPage } from "./correct/CorrectPage";
import { Login, LoginDialog } from "./Login";
import { ModelsPage } from "./models/ModelsPage";
import { Boundary } from "./parts/Boundary";
import { Busy } from "./parts/Busy";
import { Notice } from "./parts/Notice";
import { routeTo, useRoute } from "./parts/route";
import { getMe } from "./service/calls";
import type { Me } from "./service/contract";
import { asRefusal } from "./service/refusal";
import type { Refusal } from "./service/refusal";
import { currentToken, logOut, whenExpired } from "./service/session";

/** The page: who one is, where one is, and what is shown there. */
export function App(): ReactElement {
  const [me, setMe] = useState<Me | null>(null);
  const [refusal, setRefusal] = useState<Refusal | null>(null);
  const [expired, setExpired] = useState(false);
  const load = useCallback(async (): Promise<void> => {
    setRefusal(null);
    try {
      setMe(await getMe());
      setExpired(false);
    } catch (error) {
      setRefusal(asRefusal(error));
    }
  }, []);
  useEffect(() => {
    whenExpired(() => setExpired(true));
    void load();
  }, [load]);

  if (me === null) {
    if (refusal === null) return <Busy label="Connecting" />;
    if (refusal.status !== 401) return <Notice refusal={refusal} onRetry={() => void load()} />;
    return <Login refused={currentToken() === null ? null : refusal} onToken={load} />;
  }
  const leave = (): void => {
    logOut();
    setMe(null);
    void load();
  };
  return (
    <>
      <Header me={me} onLogOut={leave} />
      <main>
        <Boundary>
          <Route me={me} />
        </Boundary>
      </main>
      {expired && <LoginDialog refused={refusal} onToken={load} />}
    </>
  );
}

function Route({ me }: { me: Me }): ReactElement {
  const route = useRoute();
  if (route[0] === "models") return <ModelsPage />;
  if (route[0] === "correct") return <CorrectPage person={me.name} name={route[1]} item={route[2]} />;
  return <AnswerPage me={me} imageId={route[0] === "images" ? route[1] : undefined} answerId={route[3]} />;
}

const PAGES = [
  ["", "Answer"],
  ["models", "Models"],
  ["correct", "Correct"],
] as const;

function Header({ me, onLogOut }: { me: Me; onLogOut: () => void }): ReactElement {
  const [place = ""] = useRoute();
  const here = PAGES.some(([path]) => path === place) ? place : "";
  return (
    <header>
      <span className="brand">Cytoray</span>
      <nav aria-label="Pages">
        {PAGES.map(([path, title]) => (
          <a
            key={path}
            href={routeTo(...(path === "" ? [] : [path]))}
            aria-current={path === here ? "page" : undefined}
          >
            {title}
          </a>
        ))}
      </nav>
      <span className="who">
        {me.name}
        {me.team !== null && <span className="hint"> ({me.team})</span>}
      </span>
      {me.tokens && (
        <button type="button" className="quiet" onClick={onLogOut}>
          Log out
        </button>
      )}
    </header>
  );
}
