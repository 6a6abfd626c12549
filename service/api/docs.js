// Without validatorUrl: null, the page would load a badge from another host.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null });
