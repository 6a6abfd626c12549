// No validatorUrl: by default the page would show a badge that another host makes.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#documentation", deepLinking: true, validatorUrl: null });
