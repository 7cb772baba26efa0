// Express: `/api/time` in the same envelope, as an application in production would answer it.
import express from "express";

const app = express();
app.disable("x-powered-by");
app.disable("etag");

app.get("/api/time", (request, response) => {
  const time = Date.now();
  response.json({ request: request.originalUrl, time, message: "OK", data: time });
});

const server = app.listen(0, "127.0.0.1", 4096, () => {
  console.log(`ready ${server.address().port}`);
});
server.keepAliveTimeout = 75_000;
