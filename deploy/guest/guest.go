// Package guest carries the recipe of the tiny guest with which the site on one machine, and the tests of the hypervisor
// drivers, show that a VM boots: an ordinary bootable qcow2 of about 16 MB, made from Debian's packages without root.
package guest

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed build.sh dhcp init
var recipe embed.FS

var recipeFiles = []string{"build.sh", "dhcp", "init"}

// Image returns the path of the image, which is built on the first call with this recipe and then kept in the folder.
// tell is called before it is built, which takes some seconds and downloads from the Debian mirror.
func Image(ctx context.Context, folder string, tell func()) (string, error) {
	h := sha256.New()
	for _, name := range recipeFiles {
		b, err := recipe.ReadFile(name)
		if err != nil {
			return "", err
		}
		h.Write(b)
	}
	path := filepath.Join(folder, "guest-"+hex.EncodeToString(h.Sum(nil)[:6])+".qcow2")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	tell()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(folder, "recipe-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	for _, name := range recipeFiles {
		b, err := recipe.ReadFile(name)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(work, name), b, 0o755); err != nil {
			return "", err
		}
	}
	unfinished := filepath.Join(work, "image.qcow2")
	if out, err := exec.CommandContext(ctx, "bash", filepath.Join(work, "build.sh"), unfinished).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the guest image: %w\n%s", err, out)
	}
	return path, os.Rename(unfinished, path)
}
