package service

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// checkKeys refuses lines that no SSH server would take for a key: nobody could log in to the VM.
func checkKeys(vm *apiv1.VM) error {
	for i, line := range vm.GetSshKeys() {
		if !isKey(line) {
			field := fmt.Sprintf("ssh_keys[%d]", i)
			return problem.Newf(problem.Invalid, "Send the line of a .pub file, as ssh-keygen writes it; with naru: --ssh-key @FILE.pub.",
				"%s is no public key of SSH", field).With(field, "is no public key of SSH")
		}
	}
	return nil
}

// isKey reports whether a line of an authorized_keys file has a key in it: the name of a kind, then base64 of what begins
// with that name (RFC 4253, 6.6). Options may stand before it and a comment after it.
func isKey(line string) bool {
	fields := strings.Fields(line)
	for i := range len(fields) - 1 {
		key, err := base64.StdEncoding.DecodeString(fields[i+1])
		if err != nil || len(key) < 4 {
			continue
		}
		name := key[4:]
		if n := binary.BigEndian.Uint32(key); int64(n) < int64(len(name)) && string(name[:n]) == fields[i] {
			return true
		}
	}
	return false
}
