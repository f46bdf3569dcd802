package dev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// netnsFolder is where ip netns keeps its names. The first name that it adds makes the folder, and a mount of it upon
// itself, and the last that it deletes takes neither away.
const netnsFolder = "/run/netns"

// noteNetnsFolder writes down what of the folder is not there yet, and will be when the first namespace was added.
func (s *Site) noteNetnsFolder() error {
	mounted, err := isMounted(netnsFolder)
	if err != nil || mounted {
		return err
	}
	made := "mount"
	if _, err := os.Stat(netnsFolder); errors.Is(err, fs.ErrNotExist) {
		made = "folder"
	}
	return os.WriteFile(s.path("run", "netns"), []byte(made), 0o600)
}

// liftNetnsFolder takes away what this site made of the folder, unless somebody else keeps namespaces there by now.
func (s *Site) liftNetnsFolder() error {
	made, err := os.ReadFile(s.path("run", "netns"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	left, err := os.ReadDir(netnsFolder)
	if errors.Is(err, fs.ErrNotExist) || len(left) > 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if mounted, err := isMounted(netnsFolder); err != nil || mounted {
		if err = errors.Join(err, unix.Unmount(netnsFolder, 0)); err != nil {
			return fmt.Errorf("unmount %s: %w", netnsFolder, err)
		}
	}
	if string(made) != "folder" {
		return nil
	}
	return os.Remove(netnsFolder)
}

// isMounted reports whether a folder is what is mounted there, as this process sees it.
func isMounted(folder string) (bool, error) {
	var is unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, folder, 0, 0, &is)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return is.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, err
}
