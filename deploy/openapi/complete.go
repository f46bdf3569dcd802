package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

type object = map[string]any

const (
	apiPackage = "naru.api.v1."
	schemaRef  = "#/components/schemas/"
)

// complete writes into doc what the plugin does not know.
func complete(doc object) error {
	doc["info"] = object{
		"title": "Naru", "version": "v1",
		"description": "The control plane of a cloud that is cut into separated networks. The same API is served in the control network and at each zone's edge.",
		"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
	}
	doc["servers"] = []any{object{"url": "/"}}
	doc["security"] = []any{object{"bearer": []any{}}, object{"administrator": []any{}}}
	components := child(doc, "components")
	schemas := child(components, "schemas")
	paths := child(doc, "paths")

	for _, item := range paths {
		for verb, op := range item.(object) {
			if err := completeOperation(verb, op.(object)); err != nil {
				return err
			}
		}
	}
	mergePaths(paths)
	for name, schema := range schemas {
		if err := completeSchema(name, schema.(object)); err != nil {
			return err
		}
	}
	addShared(components, schemas)
	dropUnreachable(doc, schemas)
	shorten(doc)
	return nil
}

// completeOperation writes what the gateway adds to one method.
func completeOperation(verb string, op object) error {
	method, rule, err := methodOf(op["operationId"].(string))
	if err != nil {
		return err
	}
	op["operationId"] = string(method.Name())
	delete(op, "summary") // the method's bare name; the description says it
	parameters, _ := op["parameters"].([]any)
	parameters = append(parameters, headersOf(verb, method)...)
	for _, p := range parameters {
		if p := p.(object); p["name"] == "update_mask" {
			p["description"] = "The fields to change, by name, with commas between them; without it, the fields of the body."
			p["schema"] = object{"type": "string"}
		}
	}
	if len(parameters) > 0 {
		op["parameters"] = parameters
	}
	requireForCreation(op, method, rule)

	responses := child(op, "responses")
	success := child(responses, "200")
	success["description"] = "Done."
	answer := method.Output().Fields().ByName(protoreflect.Name(rule.GetResponseBody()))
	switch {
	case method.IsStreamingServer():
		success["description"] = "Events, each with the revision as its id and bookmark, put or delete as its event; data is the message. An event named error, whose data is a problem, ends the stream."
		success["content"] = object{"text/event-stream": child(success, "content")["application/json"]}
	case answer == nil || answer.Message() == nil:
	case answer.Message().Name() == "Operation" && verb != "get":
		delete(responses, "200")
		success["description"] = "Begun; the operation tells how it goes."
		success["headers"] = object{"Location": object{"$ref": "#/components/headers/Location"}}
		responses["202"] = success
	case answer.Message().Fields().ByName("revision") != nil:
		success["headers"] = object{"ETag": object{"$ref": "#/components/headers/ETag"}}
	}
	if verb == "get" && !method.IsStreamingServer() {
		child(success, "headers")["X-Naru-Consistency"] = object{"$ref": "#/components/headers/Consistency"}
	}
	responses["default"] = object{"$ref": "#/components/responses/Problem"}
	return nil
}

// headersOf lists the request headers that a method heeds.
func headersOf(verb string, method protoreflect.MethodDescriptor) []any {
	var names []string
	switch {
	case method.IsStreamingServer():
		names = []string{"LastEventID"}
	case verb == "get":
		names = []string{"Consistency"}
	case verb == "patch", verb == "delete":
		names = []string{"IdempotencyKey", "IfMatch"}
	default:
		names = []string{"IdempotencyKey"}
	}
	var out []any
	for _, name := range names {
		out = append(out, object{"$ref": "#/components/parameters/" + name})
	}
	return out
}

// requireForCreation says which fields a new noun must have; the noun's own schema cannot, because an update need not.
func requireForCreation(op object, method protoreflect.MethodDescriptor, rule *annotations.HttpRule) {
	field := method.Input().Fields().ByName(protoreflect.Name(rule.GetBody()))
	if rule.GetPost() == "" || field == nil {
		return
	}
	var required []any
	for i := range field.Message().Fields().Len() {
		f := field.Message().Fields().Get(i)
		behaviors, _ := proto.GetExtension(f.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
		if slices.Contains(behaviors, annotations.FieldBehavior_REQUIRED) {
			required = append(required, string(f.Name()))
		}
	}
	body := child(op, "requestBody")
	body["required"] = true
	child(child(body, "content"), "application/json")["schema"] = object{
		"allOf": []any{object{"$ref": schemaRef + string(field.Message().FullName())}, object{"required": required}},
	}
}

// mergePaths brings /v1/zones/{zone.id} under /v1/zones/{zone}: OpenAPI forbids two templates of one form.
func mergePaths(paths object) {
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if !strings.Contains(path, ".id}") {
			continue
		}
		whole := strings.ReplaceAll(path, ".id}", "}")
		target := child(paths, whole)
		for verb, op := range paths[path].(object) {
			for _, p := range op.(object)["parameters"].([]any) {
				if p := p.(object); p["in"] == "path" {
					p["name"] = strings.TrimSuffix(p["name"].(string), ".id")
					p["description"] = "Id or name."
					p["schema"] = object{"type": "string", "minLength": 1, "maxLength": 64}
				}
			}
			target[verb] = op
		}
		delete(paths, path)
	}
}

// methodOf finds the method that an operation id of the plugin's names.
func methodOf(id string) (protoreflect.MethodDescriptor, *annotations.HttpRule, error) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(id))
	if err != nil {
		return nil, nil, fmt.Errorf("operation %s: %w", id, err)
	}
	method, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, nil, fmt.Errorf("operation %s is no method", id)
	}
	rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
	return method, rule, nil
}

// child returns the object under key, making it where there is none.
func child(o object, key string) object {
	c, ok := o[key].(object)
	if !ok {
		c = object{}
		o[key] = c
	}
	return c
}
