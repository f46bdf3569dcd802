package service

import (
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFYI7xZjnFBBQuTOcWfoJNBcB3JBk5Tz1b2fbmTx5qKj"

func TestAKeyIsALineThatSSHTakes(t *testing.T) {
	for line, good := range map[string]bool{
		publicKey:               true,
		publicKey + " ann@home": true,
		`no-pty,command="/bin/echo hello" ` + publicKey: true,
		"rubbish":             false,
		"":                    false,
		"ssh-ed25519":         false,
		"ssh-ed25519 rubbish": false,
		strings.Replace(publicKey, "ed25519", "rsa", 1): false,
		"ssh-ed25519 AAAA":                    false,
		"-----BEGIN OPENSSH PRIVATE KEY-----": false,
	} {
		err := checkKeys(&apiv1.VM{SshKeys: []string{publicKey, line}})
		if (err == nil) != good {
			t.Errorf("%q: %v", line, err)
		}
		if err != nil && (!problem.Is(err, problem.Invalid) || problem.Of(err).GetErrors()[0].GetField() != "ssh_keys[1]") {
			t.Errorf("%q: %v", line, problem.Of(err))
		}
	}
}
