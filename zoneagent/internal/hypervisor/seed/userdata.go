package seed

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

const cloudConfig = "#cloud-config\n"

// userData returns Naru's own cloud-config with the client's user data in it or beside it.
func userData(vm *apiv1.VM) ([]byte, error) {
	keys, err := sshKeys(vm.GetSshKeys())
	if err != nil {
		return nil, err
	}
	client := vm.GetUserData()
	if !utf8.ValidString(client) {
		return nil, errors.New("user_data is not UTF-8")
	}
	switch {
	case strings.TrimSpace(client) == "":
		return document(ours(vm, keys))
	case firstLine(client) == strings.TrimSpace(cloudConfig):
		merged, err := merge(ours(vm, keys), client)
		if err != nil {
			return nil, err
		}
		return document(merged)
	default:
		first, err := document(ours(vm, keys))
		if err != nil {
			return nil, err
		}
		return multipart(first, client), nil
	}
}

// ours returns what Naru asks of every guest. The marker is spelled out: cloud-init knows no placeholder for the
// instance id in final_message.
func ours(vm *apiv1.VM, keys []*yaml.Node) *yaml.Node {
	node := mapping("hostname", quoted(vm.GetName()))
	if len(keys) > 0 {
		node.Content = append(node.Content, mapping("ssh_authorized_keys", sequence(keys...)).Content...)
	}
	node.Content = append(node.Content, mapping("final_message", quoted(hypervisor.ReadyMarker(vm.GetId()))).Content...)
	return node
}

func sshKeys(lines []string) ([]*yaml.Node, error) {
	nodes := make([]*yaml.Node, 0, len(lines))
	for i, line := range lines {
		if !utf8.ValidString(line) || strings.ContainsAny(line, "\r\n\x00\u0085\u2028\u2029") || strings.TrimSpace(line) == "" {
			return nil, fmt.Errorf("ssh_keys[%d] is not one line of an authorized_keys file", i)
		}
		nodes = append(nodes, quoted(line))
	}
	return nodes, nil
}

// merge lays the client's cloud-config over ours.
func merge(ours *yaml.Node, client string) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(strings.NewReader(client))
	var root yaml.Node
	if err := decoder.Decode(&root); err != nil && err != io.EOF {
		return nil, fmt.Errorf("user_data is not the YAML that its first line promises: %w", err)
	}
	if err := decoder.Decode(new(yaml.Node)); err == nil {
		return nil, errors.New("user_data holds more than one YAML document")
	}
	if len(root.Content) == 0 || root.Content[0].Tag == "!!null" {
		return ours, nil
	}
	theirs := root.Content[0]
	if theirs.Kind != yaml.MappingNode {
		return nil, errors.New("user_data is a cloud-config that is not a mapping")
	}
	theirs.Style = 0
	for i := 0; i < len(ours.Content); i += 2 {
		key, value := ours.Content[i], ours.Content[i+1]
		at := find(theirs, key.Value)
		switch {
		case at < 0:
			theirs.Content = append(theirs.Content, key, value)
		case key.Value == "ssh_authorized_keys":
			theirs.Content[at] = bothKeys(value, theirs.Content[at])
		case key.Value == "final_message":
			theirs.Content[at] = bothMessages(value, theirs.Content[at])
		}
	}
	return theirs, nil
}

// find returns where the value of a key stands in a mapping, -1 without one. Of a key given twice the last counts, as
// with cloud-init.
func find(node *yaml.Node, key string) int {
	at := -1
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			at = i + 1
		}
	}
	return at
}

// bothKeys returns our keys, then those of theirs that are plain strings.
func bothKeys(ours, theirs *yaml.Node) *yaml.Node {
	keys := sequence(ours.Content...)
	if theirs.Kind == yaml.AliasNode {
		theirs = theirs.Alias
	} else {
		keys.Anchor = theirs.Anchor
	}
	for _, key := range append([]*yaml.Node{theirs}, theirs.Content...) {
		if key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
			continue
		}
		copied := quoted(strings.TrimSpace(key.Value))
		if key != theirs {
			copied.Anchor = key.Anchor
		}
		keys.Content = append(keys.Content, copied)
	}
	return keys
}

// bothMessages returns their message with our marker on a line of its own below.
func bothMessages(ours, theirs *yaml.Node) *yaml.Node {
	if theirs.Kind != yaml.ScalarNode || theirs.Tag == "!!null" {
		return ours
	}
	both := quoted(strings.TrimRight(theirs.Value, "\n") + "\n" + ours.Value)
	both.Anchor = theirs.Anchor
	return both
}

// document returns the cloud-config as text, read once as a guest would: what a guest cannot read (an alias without its
// anchor, aliases that multiply) is refused here, in words, and not met by a guest that never comes up.
func document(node *yaml.Node) ([]byte, error) {
	text, err := encode(node)
	if err != nil {
		return nil, err
	}
	var read map[string]any
	if err := yaml.Unmarshal(text, &read); err != nil {
		return nil, fmt.Errorf("user_data: %w", err)
	}
	return append([]byte(cloudConfig), text...), nil
}

// multipart returns a MIME message with our cloud-config in the clear and the client's user data behind it. Its type is
// left to cloud-init, which tells by the first line. User data that is a MIME message itself is a part as it stands;
// the boundary is a digest of it, so it cannot hold the boundary.
func multipart(ours []byte, client string) []byte {
	sum := sha256.Sum256([]byte(client))
	boundary := "naru-" + hex.EncodeToString(sum[:])
	var out bytes.Buffer
	fmt.Fprintf(&out, "Content-Type: multipart/mixed; boundary=%q\nMIME-Version: 1.0\n\n", boundary)
	fmt.Fprintf(&out, "--%s\nContent-Type: text/cloud-config; charset=\"utf-8\"\nMIME-Version: 1.0\n\n%s\n", boundary, ours)
	fmt.Fprintf(&out, "--%s\n", boundary)
	if first := strings.ToLower(firstLine(client)); strings.HasPrefix(first, "content-type: multipart/") || strings.HasPrefix(first, "mime-version:") {
		out.WriteString(client)
	} else {
		out.WriteString("Content-Type: text/plain; charset=\"utf-8\"\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\n")
		encoded := base64.StdEncoding.EncodeToString([]byte(client))
		for len(encoded) > 76 {
			out.WriteString(encoded[:76] + "\n")
			encoded = encoded[76:]
		}
		out.WriteString(encoded)
	}
	fmt.Fprintf(&out, "\n--%s--\n", boundary)
	return out.Bytes()
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimSpace(line)
}
