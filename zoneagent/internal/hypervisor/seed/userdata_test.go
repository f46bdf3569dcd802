package seed_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/naru-project/naru/zoneagent/internal/hypervisor/seed"
)

func TestACloudConfigIsMergedUnderTheClientsWord(t *testing.T) {
	m := machine()
	m.VM.UserData = `#cloud-config
hostname: other
ssh_authorized_keys: [ssh-rsa THEIRS]
packages:
  - nginx   # theirs
final_message: "up after $UPTIME s"
`
	files := compose(t, m)
	if !bytes.HasPrefix(files.UserData, []byte("#cloud-config\n")) {
		t.Fatalf("not a cloud-config:\n%s", files.UserData)
	}
	want := map[string]any{
		"hostname":            "other",
		"ssh_authorized_keys": []any{key, "ssh-rsa THEIRS"},
		"packages":            []any{"nginx"},
		"final_message":       "up after $UPTIME s\nnaru-ready " + vmID,
	}
	if got := readYAML(t, files.UserData); !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v\nwant %v", got, want)
	}
}

func TestAnEmptyCloudConfigChangesNothing(t *testing.T) {
	plain := compose(t, machine()).UserData
	for _, data := range []string{"", "\n \n", "#cloud-config", "#cloud-config\n", "#cloud-config\n---\n", "#cloud-config\nnull\n"} {
		m := machine()
		m.VM.UserData = data
		files := compose(t, m)
		if !bytes.Equal(files.UserData, plain) {
			t.Errorf("%q gave\n%s", data, files.UserData)
		}
	}
}

func TestAnAnchorSurvivesTheMerge(t *testing.T) {
	m := machine()
	m.VM.UserData = "#cloud-config\nssh_authorized_keys: &all\n- &one ssh-rsa A\nusers:\n- name: a\n  ssh_authorized_keys: *all\n- name: b\n  ssh_authorized_keys: [*one]\n"
	users := readYAML(t, compose(t, m).UserData)["users"].([]any)
	if got := users[0].(map[string]any)["ssh_authorized_keys"]; !reflect.DeepEqual(got, []any{key, "ssh-rsa A"}) {
		t.Errorf("got %v", got)
	}
	if got := users[1].(map[string]any)["ssh_authorized_keys"]; !reflect.DeepEqual(got, []any{"ssh-rsa A"}) {
		t.Errorf("got %v", got)
	}
}

// parts reads user data as a MIME message and returns each part's type and content.
func parts(t interface{ Fatal(...any) }, data []byte) (types, contents []string) {
	message, err := mail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	kind, parameters, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" {
		t.Fatal(kind, err)
	}
	reader := multipart.NewReader(message.Body, parameters["boundary"])
	for {
		part, err := reader.NextRawPart()
		if err == io.EOF {
			return types, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		if part.Header.Get("Content-Transfer-Encoding") == "base64" {
			if body, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(string(body), "\n", "")); err != nil {
				t.Fatal(err)
			}
		}
		kind, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		types, contents = append(types, kind), append(contents, string(body))
	}
}

func TestAnythingElseComesAsTheSecondPart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plain, err := seedOf("")
		if err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\n" + rapid.OneOf(rapid.String(), rapid.StringMatching(`(--[a-z]{1,3}-?-?\n|Content-Type: x\n|\n|[ -~]{0,90}\n){0,9}`)).Draw(t, "script")
		data, err := seedOf(script)
		if err != nil {
			t.Fatal(err)
		}
		types, contents := parts(t, data)
		if !reflect.DeepEqual(types, []string{"text/cloud-config", "text/plain"}) {
			t.Fatalf("parts %v", types)
		}
		if contents[0] != string(plain) || contents[1] != script {
			t.Fatalf("got %q", contents)
		}
	})
}

func TestAMIMEMessageIsAPartAsItStands(t *testing.T) {
	inner := "Content-Type: multipart/mixed; boundary=\"x\"\nMIME-Version: 1.0\n\n--x\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n--x--"
	data, err := seedOf(inner)
	if err != nil {
		t.Fatal(err)
	}
	types, contents := parts(t, data)
	if !reflect.DeepEqual(types, []string{"text/cloud-config", "multipart/mixed"}) || !strings.HasSuffix(inner, contents[1]) {
		t.Fatalf("got %v, %q", types, contents)
	}
}

func seedOf(userData string) ([]byte, error) {
	m := machine()
	m.VM.UserData = userData
	files, err := seed.Compose(m)
	return files.UserData, err
}
