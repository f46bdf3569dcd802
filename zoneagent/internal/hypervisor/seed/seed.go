// Package seed makes the NoCloud disk that a guest reads at its first start: an ISO 9660 image with the volume id
// "cidata" that holds meta-data, user-data and network-config, as cloud-init and its kin expect them.
//
// The image is a function of the machine alone, byte for byte, so that a driver can compare what lies on a host with
// what should, and a call repeated by another agent writes the same.
//
// # How the client's user data comes in
//
// A #cloud-config is merged into Naru's as YAML, so that one plain document results, which the smallest reader can read,
// and so that the client's final_message cannot displace the line by which Naru knows that the guest is usable: cloud-init
// itself would let the later of two parts replace it. The client's keys are added to the VM's own; in everything else the
// client's word wins. Anything else (a script, an include list, a template) becomes the second part of a MIME message
// whose first part is Naru's; it is carried in base64, so nothing in it can end its part.
package seed

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"

	"github.com/kdomanski/iso9660"
	"go.yaml.in/yaml/v3"

	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// VolumeID is the name by which a guest finds its seed among its disks.
const VolumeID = "cidata"

var hostname = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Files are the contents of a seed.
type Files struct {
	MetaData, UserData, NetworkConfig []byte
}

// Build returns the machine's seed as an ISO 9660 image. An error is Fatal: the machine itself is at fault.
func Build(m hypervisor.Machine) ([]byte, error) {
	files, err := Compose(m)
	if err != nil {
		return nil, hypervisor.Fatal(fmt.Errorf("seed of vm %s: %w", m.VM.GetName(), err))
	}
	image, err := files.image()
	if err != nil {
		return nil, fmt.Errorf("writing the seed of vm %s: %w", m.VM.GetName(), err)
	}
	return image, nil
}

// Compose returns the three files.
func Compose(m hypervisor.Machine) (Files, error) {
	if !hostname.MatchString(m.VM.GetName()) {
		return Files{}, fmt.Errorf("%q is not a host name", m.VM.GetName())
	}
	if m.VM.GetId() == "" || strings.ContainsFunc(m.VM.GetId(), notGraphic) {
		return Files{}, fmt.Errorf("%q is not a vm id", m.VM.GetId())
	}
	meta, err := encode(mapping(
		"instance-id", quoted(m.VM.GetId()),
		"local-hostname", quoted(m.VM.GetName()),
	))
	if err != nil {
		return Files{}, err
	}
	user, err := userData(m.VM)
	if err != nil {
		return Files{}, err
	}
	network, err := networkConfig(m)
	if err != nil {
		return Files{}, err
	}
	return Files{MetaData: meta, UserData: user, NetworkConfig: network}, nil
}

func notGraphic(r rune) bool { return r <= ' ' || r > '~' }

// image writes the files with the ISO writer and takes the time of day, which is all that varies, out of what it wrote.
func (f Files) image() (image []byte, err error) {
	writer, err := iso9660.NewWriter()
	if err != nil {
		return nil, err
	}
	defer func() {
		if cleanErr := writer.Cleanup(); err == nil {
			err = cleanErr
		}
	}()
	for _, file := range []struct {
		name string
		data []byte
	}{
		{"meta-data", f.MetaData},
		{"user-data", f.UserData},
		{"network-config", f.NetworkConfig},
	} {
		if err := writer.AddFile(bytes.NewReader(file.data), file.name); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	if err := writer.WriteTo(&out, VolumeID); err != nil {
		return nil, err
	}
	return withoutTimes(out.Bytes())
}

// withoutTimes sets the creation, modification and effective times of the primary volume descriptor to "not specified"
// (ECMA-119 8.4.26: sixteen digits zero and an offset of zero).
func withoutTimes(image []byte) ([]byte, error) {
	const (
		descriptor = 16 * 2048 // after the system area
		times      = 813       // four times of 17 bytes each
		each       = 17
	)
	if len(image) < descriptor+2048 || !bytes.Equal(image[descriptor+1:descriptor+6], []byte("CD001")) {
		return nil, fmt.Errorf("no primary volume descriptor in an image of %d bytes", len(image))
	}
	if size := binary.LittleEndian.Uint32(image[descriptor+80:]); int(size)*2048 != len(image) {
		return nil, fmt.Errorf("volume of %d sectors in an image of %d bytes", size, len(image))
	}
	for i := range 4 {
		at := descriptor + times + i*each
		copy(image[at:at+each], "0000000000000000\x00")
	}
	return image, nil
}

// mapping returns a block mapping of keys and values in the order given.
func mapping(pairs ...any) *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i < len(pairs); i += 2 {
		node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: pairs[i].(string)}, pairs[i+1].(*yaml.Node))
	}
	return node
}

func sequence(items ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Content: items}
}

// quoted returns a string that stays a string however it reads: always in double quotes, on one line.
func quoted(value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: value}
}

func encode(node *yaml.Node) ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(node); err != nil {
		return nil, err
	}
	if err := encoder.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
