"use strict";

SwaggerUIBundle({
  url: "/api/v1/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  filter: true,
  docExpansion: "none",
  displayRequestDuration: true,
  // The description is checked where it is made; no other host is asked.
  validatorUrl: null,
});
