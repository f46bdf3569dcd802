package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Bounds of a fragment, and of what all of them come to: as much as a VM's user data.
const (
	mostNodes    = 2048
	mostDepth    = 16
	userDataSize = 16384 // characters
)

const cloudConfig = "#cloud-config\n"

// keys of cloud-init that software may set. Those that make users, set passwords, keys, names, networks, disks, or tell
// somebody outside are not among them, nor final_message, by which a guest says that it is usable.
var keys = []string{
	"apt", "bootcmd", "ca_certs", "keyboard", "locale", "ntp", "package_update", "package_upgrade", "packages", "runcmd", "snap",
	"swap", "timezone", "write_files", "yum_repos", "zypper",
}

// fileKeys are those of an entry of write_files. A source elsewhere is not: what is installed can be read where it is approved.
var fileKeys = []string{"append", "content", "defer", "encoding", "owner", "path", "permissions"}

// closed are files and folders that decide who gets in, where packets go, or what cloud-init does.
var closed = []string{
	"/boot", "/dev", "/etc/NetworkManager", "/etc/cloud", "/etc/group", "/etc/gshadow", "/etc/hostname", "/etc/hosts", "/etc/ld.so.preload",
	"/etc/login.defs", "/etc/netplan", "/etc/network", "/etc/nsswitch.conf", "/etc/pam.d", "/etc/passwd", "/etc/resolv.conf",
	"/etc/security", "/etc/shadow", "/etc/ssh", "/etc/subgid", "/etc/subuid", "/etc/sudoers", "/etc/sudoers.d",
	"/etc/sysconfig/network", "/etc/sysconfig/network-scripts", "/etc/systemd/network", "/etc/systemd/resolved.conf", "/proc",
	"/root", "/run", "/sys", "/var/lib/cloud",
}

// filled is where something that was filled in goes.
var filled = regexp.MustCompile(`\$\{form\.([^}]*)\}`)

// program is an option behind which an interpreter takes a program: -c, -lc, -e, --eval.
var program = regexp.MustCompile(`^-([a-zA-Z]*[ce][a-zA-Z]*|-(command|eval|exec|execute|expression))$`)

// fragment is the software of one entry, parsed.
type fragment struct {
	name string
	root *yaml.Node
}

// parse reads a fragment and checks it. form says which fields there are. Its errors are sentences.
func parse(s *apiv1.Software, form *Form) (*fragment, error) {
	text := s.GetUserData()
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
		return nil, errors.New("it holds bytes that are no text")
	}
	decoder := yaml.NewDecoder(strings.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		return nil, fmt.Errorf("it is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(new(yaml.Node)); err != io.EOF {
		return nil, errors.New("it holds more than one YAML document")
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode || len(root.Content) == 0 {
		return nil, errors.New("it is a mapping of cloud-config: packages: [nginx]")
	}
	count := 0
	if err := plain(root, 0, &count); err != nil {
		return nil, err
	}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i].Value, root.Content[i+1]
		if !slices.Contains(keys, key) {
			return nil, fmt.Errorf("line %d: software may not set %s; it may set %s", root.Content[i].Line, strconv.Quote(key), strings.Join(keys, ", "))
		}
		if err := checkKey(key, value); err != nil {
			return nil, err
		}
	}
	return &fragment{name: s.GetName(), root: root}, fields(root, form)
}

// plain refuses what makes a document more than its text: aliases, tags, keys given twice; and what is too large.
func plain(n *yaml.Node, depth int, count *int) error {
	*count++
	switch {
	case *count > mostNodes || depth > mostDepth:
		return fmt.Errorf("line %d: it is larger or deeper than %d values and %d levels", n.Line, mostNodes, mostDepth)
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return fmt.Errorf("line %d: anchors and aliases are not taken; write it out", n.Line)
	case n.Style&yaml.TaggedStyle != 0:
		return fmt.Errorf("line %d: tags (%s) are not taken", n.Line, n.Tag)
	case n.Tag == "!!float" || n.Tag == "!!binary" || n.Tag == "!!timestamp" || n.Tag == "!!merge":
		return fmt.Errorf("line %d: put %s in quotes", n.Line, n.Value)
	}
	seen := map[string]bool{}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			if child.Kind != yaml.ScalarNode || seen[child.Value] {
				return fmt.Errorf("line %d: key %s is given twice, or is no word", child.Line, strconv.Quote(child.Value))
			}
			seen[child.Value] = true
		}
		if err := plain(child, depth+1, count); err != nil {
			return err
		}
	}
	return nil
}

func checkKey(key string, value *yaml.Node) error {
	switch key {
	case "packages", "bootcmd", "runcmd", "write_files":
		if value.Kind != yaml.SequenceNode {
			return fmt.Errorf("line %d: %s is a list", value.Line, key)
		}
	}
	switch key {
	case "write_files":
		for _, file := range value.Content {
			if err := checkFile(file); err != nil {
				return err
			}
		}
	case "bootcmd", "runcmd":
		for _, c := range value.Content {
			words := slices.ContainsFunc(c.Content, func(w *yaml.Node) bool { return w.Kind != yaml.ScalarNode })
			if c.Kind != yaml.ScalarNode && (c.Kind != yaml.SequenceNode || len(c.Content) == 0 || words) {
				return fmt.Errorf("line %d: a command is a text or a list of words", c.Line)
			}
		}
	}
	return nil
}

func checkFile(file *yaml.Node) error {
	if file.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: a file is a mapping with a path and a content", file.Line)
	}
	at := ""
	for i := 0; i < len(file.Content); i += 2 {
		key, value := file.Content[i].Value, file.Content[i+1]
		if !slices.Contains(fileKeys, key) {
			return fmt.Errorf("line %d: a file has no %s here; it has %s", file.Content[i].Line, strconv.Quote(key), strings.Join(fileKeys, ", "))
		}
		if value.Kind != yaml.ScalarNode {
			return fmt.Errorf("line %d: %s of a file is a text", value.Line, key)
		}
		if key == "path" {
			at = value.Value
		}
	}
	switch {
	case !path.IsAbs(at) || path.Clean(at) != at || at == "/":
		return fmt.Errorf("line %d: a file's path is absolute and clean, as /etc/nginx/nginx.conf", file.Line)
	case strings.Contains(at+"/", "/.ssh/"):
		return fmt.Errorf("line %d: software may not write %s, which decides who gets in", file.Line, at)
	}
	for _, c := range closed {
		if at == c || strings.HasPrefix(at, c+"/") || strings.HasPrefix(c, at+"/") {
			return fmt.Errorf("line %d: software may not write %s: users, names and networks are Naru's", file.Line, at)
		}
	}
	return nil
}

// fields checks that something that is filled in goes only where nothing reads it as more than a text.
func fields(root *yaml.Node, form *Form) error {
	open := map[*yaml.Node]bool{}
	for i := 0; i < len(root.Content); i += 2 {
		for _, item := range root.Content[i+1].Content {
			switch root.Content[i].Value {
			case "write_files":
				for j := 0; j < len(item.Content); j += 2 {
					open[item.Content[j+1]] = item.Content[j].Value == "content"
				}
			case "bootcmd", "runcmd":
				for j := 1; j < len(item.Content); j++ {
					open[item.Content[j]] = !program.MatchString(item.Content[j-1].Value)
				}
			}
		}
	}
	return walk(root, func(n *yaml.Node) error {
		for _, m := range filled.FindAllStringSubmatch(n.Value, -1) {
			field := form.field(m[1])
			switch {
			case field == nil:
				return fmt.Errorf("line %d: %s is no field of the form", n.Line, strconv.Quote(m[1]))
			case !open[n]:
				return fmt.Errorf("line %d: %s cannot stand here: what is filled in goes into the content of a file, or is one word of a command that is a list, and not the first", n.Line, m[0])
			case (field.Type == "string" || field.Type == "array") && !field.narrow:
				return fmt.Errorf("line %d: field %s takes any text; give it a pattern, a format or an enum before it is put into software", n.Line, m[1])
			case field.Default == nil && !field.Required:
				return fmt.Errorf("line %d: field %s may stay empty; make it required, or give it a default", n.Line, m[1])
			}
		}
		return nil
	})
}

func walk(n *yaml.Node, visit func(*yaml.Node) error) error {
	if n.Kind == yaml.ScalarNode {
		return visit(n)
	}
	for _, c := range n.Content {
		if err := walk(c, visit); err != nil {
			return err
		}
	}
	return nil
}

// merge puts fragments into one cloud-config, in order: lists one behind the other, mappings key by key. Two that say
// different things of one key are refused. There is no text for no fragment.
func merge(fragments []*fragment, values Values) (string, error) {
	if len(fragments) == 0 {
		return "", nil
	}
	out := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range fragments {
		if err := lay(out, f.root, ""); err != nil {
			return "", fmt.Errorf("software %s %w", f.name, err)
		}
	}
	err := walk(out, func(n *yaml.Node) error {
		with := filled.ReplaceAllStringFunc(n.Value, func(m string) string { return values.Text(filled.FindStringSubmatch(m)[1]) })
		if with != n.Value {
			n.Value, n.Tag = with, "!!str"
			if n.Style != yaml.LiteralStyle {
				n.Style = yaml.DoubleQuotedStyle
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	text.WriteString(cloudConfig)
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(out); err != nil {
		return "", err
	}
	if n := utf8.RuneCount(text.Bytes()); n > userDataSize {
		return "", fmt.Errorf("all software comes to %d characters, and a guest is given %d at most", n, userDataSize)
	}
	return text.String(), nil
}

// lay puts what a mapping says into another; at is where, for people. What is laid is copied.
func lay(out, in *yaml.Node, at string) error {
	for i := 0; i < len(in.Content); i += 2 {
		key, value := in.Content[i], in.Content[i+1]
		name := strings.TrimPrefix(at+"."+key.Value, ".")
		j := 0
		for j < len(out.Content) && out.Content[j].Value != key.Value {
			j += 2
		}
		if j == len(out.Content) {
			out.Content = append(out.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: key.Tag, Style: key.Style, Value: key.Value}, copied(value))
			continue
		}
		there := out.Content[j+1]
		switch {
		case there.Kind != value.Kind:
			return fmt.Errorf("gives %s another form than the software before it", name)
		case value.Kind == yaml.SequenceNode:
			for _, item := range value.Content {
				if name != "packages" || !slices.ContainsFunc(there.Content, func(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Value == item.Value }) {
					there.Content = append(there.Content, copied(item))
				}
			}
		case value.Kind == yaml.MappingNode:
			if err := lay(there, value, name); err != nil {
				return err
			}
		case there.Value != value.Value || there.Tag != value.Tag:
			return fmt.Errorf("sets %s to %s, and the software before it to %s", name, value.Value, there.Value)
		}
	}
	return nil
}

func copied(n *yaml.Node) *yaml.Node {
	c := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Style: n.Style, Value: n.Value}
	for _, child := range n.Content {
		c.Content = append(c.Content, copied(child))
	}
	return c
}
