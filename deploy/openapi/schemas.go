package main

import (
	"maps"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/naru-project/naru/pkg/gateway"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// completeSchema writes into a message's schema who may write which field, and takes out what is internal.
func completeSchema(name string, s object) error {
	if !strings.HasPrefix(name, apiPackage) {
		return nil
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return err
	}
	message, ok := d.(protoreflect.MessageDescriptor)
	if !ok {
		return nil // an enum
	}
	properties, _ := s["properties"].(object)
	for key, p := range properties {
		f := message.Fields().ByName(protoreflect.Name(key))
		if f == nil {
			continue
		}
		property := p.(object)
		if gateway.Hidden(f) {
			delete(properties, key)
			continue
		}
		switch schema.Access(f) {
		case apiv1.Access_ACCESS_OUTPUT, apiv1.Access_ACCESS_OBSERVED:
			property["readOnly"] = true
		case apiv1.Access_ACCESS_IMMUTABLE:
			property["x-naru-immutable"] = true
			property["description"] = strings.TrimSpace(text(property["description"]) + " Given at creation, never changed.")
		}
	}
	return nil
}

// addShared adds what operations refer to.
func addShared(components, schemas object) {
	components["securitySchemes"] = object{
		"bearer":        object{"type": "http", "scheme": "bearer", "description": "An access token of a project."},
		"administrator": object{"type": "mutualTLS", "description": "An administrator's certificate, in the control network only."},
	}
	components["headers"] = object{
		"ETag":     object{"description": "The noun's revision, in quotes.", "schema": object{"type": "string"}},
		"Location": object{"description": "Path of the operation.", "schema": object{"type": "string"}},
		"Consistency": object{
			"description": "local; since=TIME: the zone whose edge was asked is cut off since then, and the answer is of what the zone itself holds, and of nothing else. stale: no server leads, and the answer is what the server has that was asked. Not there where nothing is missing.",
			"schema":      object{"type": "string"},
		},
	}
	header := func(name, description string, schema object) object {
		return object{"name": name, "in": "header", "description": description, "schema": schema}
	}
	components["parameters"] = object{
		"IdempotencyKey": header("Idempotency-Key", "Makes it safe to send the request again: within 24 hours the same key gives the same answer. The same key with another request is refused with 422.",
			object{"type": "string", "minLength": 1, "maxLength": 128}),
		"IfMatch": header("If-Match", "The ETag that the change rests on; another revision now is refused with 412.",
			object{"type": "string", "maxLength": 66}),
		"LastEventID": header("Last-Event-ID", "The id of the last event that was received; goes before after.",
			object{"type": "string", "maxLength": 64}),
		"Consistency": header("X-Naru-Consistency", "stale: what this server has, which may be a little old. Without it: everything that was acknowledged before.",
			object{"type": "string", "enum": []any{"stale"}}),
	}
	components["responses"] = object{"Problem": object{
		"description": "Why it was refused, and what to do.",
		"content":     object{"application/problem+json": object{"schema": object{"$ref": schemaRef + "ProblemDocument"}}},
	}}
	// Not allOf: the message allows no further property, so together the two would allow nothing.
	document := maps.Clone(schemas[apiPackage+"Problem"].(object))
	document["description"] = "A problem as RFC 9457 writes it."
	document["required"] = []any{"type", "title", "status", "code"}
	members := maps.Clone(document["properties"].(object))
	members["type"] = object{"type": "string", "format": "uri", "description": "https://naru.dev/problems/ and the code in lower case, with dashes."}
	members["status"] = object{"type": "integer", "description": "The HTTP status."}
	document["properties"] = members
	schemas["ProblemDocument"] = document
	if ts, ok := schemas["google.protobuf.Timestamp"].(object); ok {
		ts["description"] = "RFC 3339, UTC."
		delete(ts, "examples")
	}
}

// dropUnreachable takes out the schemas that no path leads to.
func dropUnreachable(doc, schemas object) {
	reached := map[string]bool{}
	var visit func(v any)
	visit = func(v any) {
		switch v := v.(type) {
		case object:
			if ref, ok := v["$ref"].(string); ok && strings.HasPrefix(ref, schemaRef) {
				if name := strings.TrimPrefix(ref, schemaRef); !reached[name] {
					reached[name] = true
					visit(schemas[name])
				}
			}
			for _, c := range v {
				visit(c)
			}
		case []any:
			for _, c := range v {
				visit(c)
			}
		}
	}
	visit(doc["paths"])
	visit(doc["components"].(object)["responses"])
	for name := range schemas {
		if !reached[name] {
			delete(schemas, name)
		}
	}
}

// shorten takes the package off every schema's name, and titles that say nothing.
func shorten(doc object) {
	short := func(name string) string {
		return strings.TrimPrefix(strings.TrimPrefix(name, apiPackage), "google.protobuf.")
	}
	schemas := doc["components"].(object)["schemas"].(object)
	renamed := object{}
	for name, s := range schemas {
		renamed[short(name)] = s
	}
	doc["components"].(object)["schemas"] = renamed
	var visit func(v any)
	visit = func(v any) {
		switch v := v.(type) {
		case object:
			if ref, ok := v["$ref"].(string); ok && strings.HasPrefix(ref, schemaRef) {
				v["$ref"] = schemaRef + short(strings.TrimPrefix(ref, schemaRef))
			}
			if _, ok := v["title"].(string); ok { // the name of what it stands under, again
				delete(v, "title")
			}
			for _, c := range v {
				visit(c)
			}
		case []any:
			for _, c := range v {
				visit(c)
			}
		}
	}
	visit(doc["paths"])
	visit(doc["components"])
}

func text(v any) string {
	s, _ := v.(string)
	return s
}
