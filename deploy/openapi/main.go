// Command openapi completes the API's description. protoc's plugin knows messages, paths and validation rules; it does not
// know what the gateway adds to them. This writes that in, from the same descriptors that the gateway reads: problems,
// headers, 202 for what begins an operation, event streams, who may write a field, and no internal fields.
//
//	openapi IN.yaml OUT.json
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"go.yaml.in/yaml/v3"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: openapi IN.yaml OUT.json")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run(in, out string) error {
	data, err := generate(in)
	if err != nil {
		return err
	}
	return os.WriteFile(out, data, 0o644)
}

// generate returns the completed description as JSON, keys in order, so that the same input gives the same bytes.
func generate(in string) ([]byte, error) {
	raw, err := os.ReadFile(in)
	if err != nil {
		return nil, err
	}
	var doc object
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", in, err)
	}
	if err := complete(doc); err != nil {
		return nil, fmt.Errorf("%s: %w", in, err)
	}
	data, err := json.MarshalIndent(doc, "", " ")
	return append(data, '\n'), err
}
