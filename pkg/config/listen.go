package config

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Listen listens on HOST:PORT, the value of a key. An error names both, and the way out.
func Listen(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is taken by another process: free the port or choose another: %w", key, address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: this machine has no address of %s: set one that it has, as `ip address` shows them: %w", key, address, err)
	case err != nil:
		return nil, fmt.Errorf("%s: nobody can listen on %s: set another address: %w", key, address, err)
	}
	return l, nil
}
