package folderlock

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFolderIsOneProcesssUntilItLetsGo(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "made", "here")
	first, err := Take(folder)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Take(folder)
	if err == nil || !strings.Contains(err.Error(), folder) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d;", os.Getpid())) {
		t.Errorf("a folder in use: %v", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	second, err := Take(folder)
	if err != nil {
		t.Fatalf("a folder that was let go: %v", err)
	}
	if err := second.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestAFolderThatCannotBeMadeIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Take(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file as folder: %v", err)
	}
}
