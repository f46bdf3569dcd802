package libvirt

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// endpoint is where a libvirtd listens: a unix socket, or an address for TLS.
type endpoint struct {
	socket     string
	host, port string
}

const (
	defaultSocket = "/run/libvirt/libvirt-sock"
	defaultPort   = "16514"
)

// parseEndpoint reads a libvirt URI of one of two forms:
//
//	qemu+unix:///system[?socket=PATH]
//	qemu+tls://HOST[:PORT]/system
func parseEndpoint(text string) (endpoint, error) {
	uri, err := url.Parse(text)
	if err != nil {
		return endpoint{}, err
	}
	if uri.Scheme != "qemu+unix" && uri.Scheme != "qemu+tls" {
		return endpoint{}, fmt.Errorf("%q is neither qemu+unix:///system?socket=PATH nor qemu+tls://HOST[:PORT]/system", text)
	}
	if uri.Path != "/system" || uri.User != nil || uri.Fragment != "" {
		return endpoint{}, fmt.Errorf("%q does not end in /system", text)
	}
	query, err := url.ParseQuery(uri.RawQuery)
	if err != nil {
		return endpoint{}, err
	}
	socket := query["socket"]
	delete(query, "socket")
	if len(query) > 0 || len(socket) > 1 {
		return endpoint{}, fmt.Errorf("%q has more in its query than one socket", text)
	}
	if uri.Scheme == "qemu+tls" {
		if len(socket) > 0 {
			return endpoint{}, errors.New("TLS goes to an address, not to a socket")
		}
		if uri.Hostname() == "" {
			return endpoint{}, fmt.Errorf("%q names no host", text)
		}
		port := uri.Port()
		if port == "" {
			port = defaultPort
		}
		return endpoint{host: uri.Hostname(), port: port}, nil
	}
	if uri.Host != "" {
		return endpoint{}, fmt.Errorf("%q names a host, and a unix socket is on this one", text)
	}
	if len(socket) == 0 {
		return endpoint{socket: defaultSocket}, nil
	}
	if !strings.HasPrefix(socket[0], "/") {
		return endpoint{}, fmt.Errorf("socket %q is not an absolute path", socket[0])
	}
	return endpoint{socket: socket[0]}, nil
}

func (e endpoint) address() string { return net.JoinHostPort(e.host, e.port) }
