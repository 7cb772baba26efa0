/** The client at `/`. */
import "../shared/theme.css";
import "./client.css";
import { render } from "preact";

import { Enter } from "./enter.js";
import { Lobby } from "./lobby.js";
import { route } from "./route.js";
import { link } from "./session.js";
import { Visit } from "./visit.js";

function App() {
  const now = route.value;
  const loggedIn = link.value !== "none";
  if (!loggedIn) return <Enter title="Welcome to Reileta" invited={now.at === "instance"} />;
  if (now.at === "instance") return <Visit key={now.instance} instance={now.instance} />;
  return <Lobby />;
}

const root = document.querySelector("#root");
if (root) render(<App />, root);
