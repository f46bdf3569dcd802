package gateway

import (
	_ "embed"
	"net/http"
)

// openAPI is the API's description, completed by deploy/openapi from what protoc wrote.
//
//go:embed openapi.json
var openAPI []byte

// OpenAPI returns the API's description, OpenAPI 3.1 as JSON. The caller must not change it.
func OpenAPI() []byte { return openAPI }

func serveOpenAPI(w http.ResponseWriter, _ *http.Request, _ map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "max-age=3600")
	_, _ = w.Write(openAPI)
}
