/** Where the server is. Scripts lie in `BASE/assets/`, also behind a base path. */
export const SERVER = new URL("..", import.meta.url).href.replace(/\/$/, "");
