// Package client is the Go SDK of Naru's API: a configuration that says where and as whom, and one connection with every
// service on it.
package client

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/resolver"

	"github.com/naru-project/naru/pkg/config"
)

// Config says where the API is and who calls. Files are looked up beside the configuration file unless absolute.
type Config struct {
	// https://HOST:PORT of the control plane, or of a zone's edge; several of them with commas between.
	Server string `yaml:"server"`
	// PEM file of the CA that signs the server's certificate.
	CAFile string `yaml:"ca_file"`
	// Pin of the federation's root (sha256: and 64 hexadecimal digits), by which naru login knows that what is typed is sealed to
	// the control plane, whoever stands between. naru-controlplane pin prints it.
	TrustPin string `yaml:"trust_pin"`
	// PEM files of an administrator's certificate and key.
	CertificateFile string `yaml:"certificate_file"`
	KeyFile         string `yaml:"key_file"`
	// Bearer token, or the file that holds it.
	Token     string `yaml:"token"`
	TokenFile string `yaml:"token_file"`
	// Defaults of the command line's --project and --zone.
	Project string `yaml:"project"`
	Zone    string `yaml:"zone"`
}

// DefaultPath returns where the configuration is looked for: NARU_CONFIG, else the file of the context NARU_CONTEXT, else
// config.yaml in the user's configuration folder.
func DefaultPath() string {
	if p := os.Getenv("NARU_CONFIG"); p != "" {
		return p
	}
	return ContextPath(cmp.Or(os.Getenv("NARU_CONTEXT"), "config"))
}

// ContextPath returns the file of a context: NAME.yaml in naru/ of the user's configuration folder.
func ContextPath(name string) string {
	dir, err := os.UserConfigDir()
	if err != nil {
		dir = "."
	}
	return filepath.Join(dir, "naru", filepath.Base(name)+".yaml")
}

// Contexts returns the names of the user's contexts, in order. config.yaml is none: it is the one that counts where none is
// named, and may be a link to one.
func Contexts() []string {
	files, _ := filepath.Glob(ContextPath("*")) // only a bad pattern is an error
	names := []string{}
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".yaml"); name != "config" {
			names = append(names, name)
		}
	}
	return names
}

// CurrentContext returns the context that counts where nothing else is said; empty where that is none.
func CurrentContext() string {
	target, err := filepath.EvalSymlinks(DefaultPath())
	if err != nil {
		return ""
	}
	for _, name := range Contexts() {
		if path, err := filepath.EvalSymlinks(ContextPath(name)); err == nil && path == target {
			return name
		}
	}
	return ""
}

// ReadConfig reads the file at path, and nothing else.
func ReadConfig(path string) (*Config, error) {
	c := &Config{}
	if err := config.Load(path, c); err != nil {
		return nil, err
	}
	for _, f := range []*string{&c.CAFile, &c.CertificateFile, &c.KeyFile, &c.TokenFile} {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(filepath.Dir(path), *f)
		}
	}
	return c, nil
}

// LoadConfig reads the file at path and lets NARU_SERVER, NARU_CA_FILE, NARU_TRUST_PIN, NARU_TOKEN, NARU_PROJECT and
// NARU_ZONE override it. Without a file the variables alone may do.
func LoadConfig(path string) (*Config, error) {
	c, err := ReadConfig(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		c = &Config{}
	case err != nil:
		return nil, err
	}
	for name, field := range map[string]*string{
		"NARU_SERVER": &c.Server, "NARU_TOKEN": &c.Token, "NARU_PROJECT": &c.Project, "NARU_ZONE": &c.Zone, "NARU_CA_FILE": &c.CAFile,
		"NARU_TRUST_PIN": &c.TrustPin,
	} {
		if v := os.Getenv(name); v != "" {
			*field = v
		}
	}
	if c.Server == "" {
		return nil, noServer(path, err)
	}
	return c, nil
}

// noServer says how to get a configuration, where there is none or it names no server.
func noServer(path string, missing error) error {
	what := path + " names no server"
	if missing != nil {
		what = "there is no configuration at " + path
	}
	return fmt.Errorf(`%s
  An administrator gives you one: server (https://HOST:PORT), ca_file and trust_pin or token. An administrator's own is the config.yaml
  that naru-controlplane init wrote. Put it there, or say where it is: --config FILE or NARU_CONFIG.
  Without a file: NARU_SERVER, NARU_CA_FILE and NARU_TOKEN`, what)
}

// servers returns where the servers are, and by what name each is known in its certificate.
func (c *Config) servers() ([]resolver.Address, error) {
	var out []resolver.Address
	for text := range strings.SplitSeq(c.Server, ",") {
		text = strings.TrimSpace(text)
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("server %q is not of the form https://HOST:PORT", text)
		}
		out = append(out, resolver.Address{Addr: net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")), ServerName: u.Hostname()})
	}
	return out, nil
}

// tlsConfig returns how the server is checked and what the client shows.
func (c *Config) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS13}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no certificate", c.CAFile)
		}
	}
	if c.CertificateFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertificateFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("certificate_file, key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// token returns the bearer token; empty where none is configured.
func (c *Config) token() (string, error) {
	if c.Token != "" || c.TokenFile == "" {
		return c.Token, nil
	}
	b, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line), nil
}
