package controlplane

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/replica"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/adminfiles"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Init makes an empty data folder into that of a new federation's first server, and writes what its first administrator
// needs (ca.pem, admin.pem, admin.key, config.yaml) into the folder admin. Start the server with Run then.
func Init(c *Config, log *slog.Logger, federation, admin string) error {
	if err := adminfiles.Free(admin); err != nil {
		return err
	}
	keeper, err := openNew(c, log)
	if err != nil {
		return err
	}
	serverID, err := uuid.NewV7()
	if err != nil {
		return err
	}
	ring, person, err := keeper.Begin(federation, serverID.String(), "admin")
	if err != nil {
		return err
	}
	epochID := make([]byte, 16)
	rand.Read(epochID)
	administrator, err := recordOf("admin", person.Chain[0])
	if err != nil {
		return err
	}
	first, err := proto.Marshal(&commandv1.Bootstrap{
		Federation: federation, Epoch: uint64(time.Now().Unix()), EpochId: epochID, Keyring: ring, Administrator: administrator,
	})
	if err != nil {
		return err
	}
	if err := adminfiles.Write(admin, person.Key, person.Chain, keeper.Root(), c.API.Advertise); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.Data, bootstrapFile), first, 0o600)
}

// recordOf is what the federation keeps of an administrator who has a certificate.
func recordOf(name string, leaf []byte) (*apiv1.Administrator, error) {
	certificate, err := x509.ParseCertificate(leaf)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	return &apiv1.Administrator{
		Id: id.String(), Name: name, Fingerprint: pki.Fingerprint(certificate.PublicKey), ExpiresAt: timestamppb.New(certificate.NotAfter),
	}, nil
}

// Admin writes into a folder what an administrator of this name needs, as Init does, by the authority of this server's
// key: for when no administrator's certificate is good any more. The server has to run, and so does a majority. A
// certificate that the name had for another key is refused from then on.
func Admin(ctx context.Context, c *Config, log *slog.Logger, name, dir string) error {
	if err := adminfiles.Free(dir); err != nil {
		return err
	}
	keeper, err := openOwn(c, log)
	if err != nil {
		return err
	}
	key, csr, err := adminfiles.NewKey()
	if err != nil {
		return err
	}
	peers := &pki.Guard{Root: keeper.Root, Want: []pki.Role{pki.RoleServer}}
	conn, err := grpc.NewClient("passthrough:///"+c.Peer.Advertise, grpc.WithTransportCredentials(credentials.NewTLS(peers.Client(keeper.Holder().TLSCertificate))))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	answer, err := commandv1.NewPeerServiceClient(conn).IssueAdministrator(ctx, &commandv1.IssueAdministratorRequest{Name: name, Csr: csr}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("ask the server at %s, which has to run: %w", c.Peer.Advertise, problem.FromStatus(err))
	}
	return adminfiles.Write(dir, key, answer.GetChain(), keeper.Root(), c.API.Advertise)
}

// Join makes an empty data folder into that of one more server, let in by the server at address with a token. Start the
// server with Run then; it asks the leader to be admitted.
func Join(ctx context.Context, c *Config, log *slog.Logger, address, token string) error {
	t, err := pki.ParseJoinToken(token)
	if err != nil {
		return err
	}
	keeper, err := openNew(c, log)
	if err != nil {
		return err
	}
	serverID, err := uuid.NewV7()
	if err != nil {
		return err
	}
	nonce := make([]byte, 32)
	rand.Read(nonce)
	request, take, err := keeper.AskToJoin(t, c.Name, serverID.String(), nonce)
	if err != nil {
		return err
	}
	server := &pki.Guard{Pin: t.Pin, Want: []pki.Role{pki.RoleServer}}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(server.Client(nil))))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	answer, err := commandv1.NewPeerServiceClient(conn).Join(ctx, request, grpc.WaitForReady(true))
	switch {
	case status.Code(err) == codes.Unimplemented:
		return fmt.Errorf("join at %s: it answers, but not as a server to other servers; give a server's peer address, not that of its API", address)
	case problem.Is(problem.FromStatus(err), problem.Timeout):
		return fmt.Errorf("join at %s: no server answers there; is it up, and is that its peer address? %s", address, status.Convert(err).Message())
	case err != nil:
		return fmt.Errorf("join at %s: %w", address, problem.FromStatus(err))
	}
	if err := take(answer); err != nil {
		return err
	}
	pending, err := json.Marshal(pendingJoin{Seeds: []string{address}})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.Data, joinFile), pending, 0o600)
}

// Restore makes a data folder that holds nothing but a server's keys into that of a federation's only server, whose state
// is the backup. It begins a new epoch when it is started. The keys folder must be that of a server of the federation: the
// keyring in the backup opens only with its sealing key.
func Restore(c *Config, log *slog.Logger, backup string) error {
	noKeys := fmt.Errorf("%s holds no keys of a server: copy the folder keys of one of the federation's servers there first", c.keys())
	certified, err := c.certified()
	if err != nil {
		return err
	}
	if !certified {
		return noKeys
	}
	keeper, err := openKeeper(c, log)
	if err != nil {
		return err
	}
	if !keeper.Ready() {
		return noKeys
	}
	if _, err := os.Stat(c.state()); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s holds a state already; move it away, so that nothing is lost, and restore again", c.state())
	}
	f, err := os.Open(backup)
	if err != nil {
		return err
	}
	defer f.Close()
	header, err := state.ReadHeader(f)
	if err != nil {
		return fmt.Errorf("%s: %w", backup, err)
	}
	peer := keeper.Holder().Peer()
	if header.Federation != peer.Federation {
		return fmt.Errorf("%s is a backup of federation %s, and the keys are of %s", backup, header.Federation, peer.Federation)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	db, err := state.Open(c.state(), state.Options{ServerID: peer.ServerID, Federation: peer.Federation, Logger: log})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := replica.Recover(replica.Config{
		ServerID: peer.ServerID, Federation: peer.Federation, Dir: c.raft(), Address: c.Peer.Advertise,
		Machine: machine{fsm.New(db)}, Tuning: c.Raft, Logger: log,
	}, f); err != nil {
		return err
	}
	restored, err := json.Marshal(restoredBackup{Name: filepath.Base(backup), Revision: header.Revision})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.Data, restoredFile), restored, 0o600)
}

// Pin returns the pin of the CA certificate in a PEM file: what a broker's configuration names.
func Pin(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return "", fmt.Errorf("%s holds no certificate", path)
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return pki.Pin(root), nil
}

// ReadToken reads a join token from a file.
func ReadToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}
