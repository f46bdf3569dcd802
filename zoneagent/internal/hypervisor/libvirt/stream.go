package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket"
	"github.com/digitalocean/go-libvirt/socket/dialers"
)

// stream is a connection that carries one transfer to or from a volume. It speaks over the library's socket and not
// through its stream calls. Those take the first packet for the answer, whereas libvirtd may send a download's first
// bytes, and its end, before it answers: one in sixty short downloads came back empty that way, or hung. They also wait
// for ever for the end of an upload that the far side refused, and leave every download open there.
type stream struct {
	conn    net.Conn
	socket  *socket.Socket
	serial  int32
	packets chan packet
	early   []packet      // of the call under way, that came before its answer
	done    chan struct{} // closed with the stream; nothing is handed over after
	release func() bool
}

// packet is what came from the far side.
type packet struct {
	header  socket.Header
	payload []byte
}

// libvirt's remote protocol: src/remote/remote_protocol.x, src/rpc/virnetprotocol.x.
const (
	remoteProgram          = 0x20008086
	procConnectOpen        = 1
	procAuthList           = 66
	procAuthPolkit         = 70
	procStorageVolUpload   = 208
	procStorageVolDownload = 209

	authNone   = 0
	authPolkit = 2

	streamPart = 256 << 10 // more than this old daemons take for an attack
)

// openStream connects and opens QEMU's driver. The connection ends with ctx at the latest.
func openStream(ctx context.Context, dial dialFunc) (*stream, error) {
	connecting, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := dial(connecting)
	if err != nil {
		return nil, err
	}
	s := &stream{conn: conn, packets: make(chan packet, 16), done: make(chan struct{})}
	s.release = context.AfterFunc(ctx, func() { conn.Close() })
	s.socket = socket.New(dialers.NewAlreadyConnected(conn), s)
	if err := s.hello(connecting); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stream) hello(ctx context.Context) error {
	if err := s.socket.Connect(); err != nil {
		return err
	}
	methods, err := s.call(ctx, procAuthList, nil)
	if err != nil {
		return err
	}
	ways, err := authMethods(methods)
	switch {
	case err != nil:
		return err
	case slices.Contains(ways, authNone):
	case slices.Contains(ways, authPolkit):
		if _, err := s.call(ctx, procAuthPolkit, nil); err != nil {
			return err
		}
	default:
		return fmt.Errorf("the daemon wants a way to log in that is not known here: %v", ways)
	}
	var open xdr
	open.uint32(1) // a name follows
	open.string(string(rpc.QEMUSystem))
	open.uint32(0) // flags
	_, err = s.call(ctx, procConnectOpen, open)
	return err
}

func (s *stream) close() {
	s.release()
	close(s.done)
	s.conn.Close()
}

// Route takes a packet from the library's reader.
func (s *stream) Route(header *socket.Header, payload []byte) {
	select {
	case s.packets <- packet{*header, payload}:
	case <-s.done:
	}
}

// receive returns the next packet of one kind (Reply, Stream) of the call that is under way. What the far side sent as
// an error is an error.
func (s *stream) receive(ctx context.Context, kind uint32) (packet, error) {
	for {
		var p packet
		if kind == socket.Stream && len(s.early) > 0 {
			p, s.early = s.early[0], s.early[1:]
		} else {
			var err error
			if p, err = s.next(ctx); err != nil {
				return packet{}, err
			}
		}
		switch {
		case p.header.Serial != s.serial:
		case p.header.Status == socket.StatusError:
			return packet{}, remoteError(p.payload)
		case p.header.Type == kind:
			return p, nil
		case p.header.Type == socket.Stream:
			s.early = append(s.early, p)
		}
	}
}

// next returns whatever packet comes next; one that came before the connection's end comes before the error.
func (s *stream) next(ctx context.Context) (packet, error) {
	select {
	case p := <-s.packets:
		return p, nil
	case <-ctx.Done():
		return packet{}, ctx.Err()
	case <-s.socket.Disconnected():
		select {
		case p := <-s.packets:
			return p, nil
		default:
			return packet{}, errors.Join(ctx.Err(), io.ErrUnexpectedEOF)
		}
	}
}

func (s *stream) send(procedure uint32, payload []byte, kind, status uint32) error {
	return s.socket.SendPacket(s.serial, procedure, remoteProgram, payload, kind, status)
}

// call runs a remote procedure and returns its answer.
func (s *stream) call(ctx context.Context, procedure uint32, arguments []byte) ([]byte, error) {
	s.serial, s.early = s.serial+1, nil
	if err := s.send(procedure, arguments, socket.Call, socket.StatusOK); err != nil {
		return nil, err
	}
	p, err := s.receive(ctx, socket.Reply)
	return p.payload, err
}

// download returns up to length bytes of a volume from an offset.
func (s *stream) download(ctx context.Context, volume rpc.StorageVol, offset, length uint64) ([]byte, error) {
	if _, err := s.call(ctx, procStorageVolDownload, transfer(volume, offset, length)); err != nil {
		return nil, err
	}
	var content []byte
	for {
		p, err := s.receive(ctx, socket.Stream)
		if err != nil {
			return nil, err
		}
		if len(p.payload) == 0 {
			break
		}
		content = append(content, p.payload...)
	}
	return content, s.finish(ctx, procStorageVolDownload)
}

// upload sends all of a source to a volume, from its beginning.
func (s *stream) upload(ctx context.Context, volume rpc.StorageVol, source io.Reader) error {
	if _, err := s.call(ctx, procStorageVolUpload, transfer(volume, 0, 0)); err != nil {
		return err
	}
	part := make([]byte, streamPart)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		select {
		case p := <-s.packets: // before the end only an error comes
			if p.header.Status == socket.StatusError {
				return remoteError(p.payload)
			}
		default:
		}
		n, err := source.Read(part)
		if n > 0 {
			if err := s.send(procStorageVolUpload, part[:n], socket.Stream, socket.StatusContinue); err != nil {
				return errors.Join(ctx.Err(), err)
			}
		}
		if err == io.EOF {
			return s.finish(ctx, procStorageVolUpload)
		}
		if err != nil {
			return err
		}
	}
}

// finish ends a transfer on both sides. Behind its answer an upload's bytes are in the file.
func (s *stream) finish(ctx context.Context, procedure uint32) error {
	if err := s.send(procedure, nil, socket.Stream, socket.StatusOK); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	for {
		p, err := s.receive(ctx, socket.Stream)
		if err != nil {
			return err
		}
		if p.header.Status == socket.StatusOK {
			return nil
		}
	}
}

// stream runs a transfer on a connection of its own: a long one holds up nothing else, and whatever goes wrong in it ends
// with its connection.
func (h *host) stream(ctx context.Context, name string, transfer func(*stream) error) error {
	if h.closed.Load() {
		return errClosed
	}
	s, err := openStream(ctx, h.dial)
	h.options.Metrics.connect(err)
	if err != nil {
		return fmt.Errorf("connecting to libvirt: %w", err)
	}
	defer s.close()
	began := time.Now()
	err = transfer(s)
	h.options.Metrics.call(name, time.Since(began), err)
	return err
}
