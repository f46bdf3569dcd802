package libvirt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

// daemon is the far side of a stream: it answers packets with packets, in the order of its script.
type daemon struct {
	conn net.Conn
	// answer returns what is sent on a packet; nil closes the connection.
	answer func(p packet) []packet
}

func (d daemon) run() {
	defer d.conn.Close()
	for {
		head := make([]byte, 28)
		if _, err := io.ReadFull(d.conn, head); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(head)-28)
		if _, err := io.ReadFull(d.conn, payload); err != nil {
			return
		}
		word := func(i int) uint32 { return binary.BigEndian.Uint32(head[4*i:]) }
		in := packet{socket.Header{Program: word(1), Version: word(2), Procedure: word(3), Type: word(4), Serial: int32(word(5)), Status: word(6)}, payload}
		out := d.answer(in)
		if out == nil {
			return
		}
		for _, p := range out {
			var x xdr
			for _, n := range []uint32{uint32(28 + len(p.payload)), remoteProgram, 1, in.header.Procedure, p.header.Type, uint32(in.header.Serial), p.header.Status} {
				x.uint32(n)
			}
			if _, err := d.conn.Write(append(x, p.payload...)); err != nil {
				return
			}
		}
	}
}

func reply(payload ...byte) packet {
	return packet{socket.Header{Type: socket.Reply, Status: socket.StatusOK}, payload}
}

func data(text string) packet {
	return packet{socket.Header{Type: socket.Stream, Status: socket.StatusContinue}, []byte(text)}
}

func finished() packet {
	return packet{socket.Header{Type: socket.Stream, Status: socket.StatusOK}, nil}
}

// failure is an error as libvirt sends it, as an answer or in a stream.
func failure(kind uint32, code rpc.ErrorNumber, message string) packet {
	var x xdr
	x.uint32(uint32(code))
	x.uint32(18) // domain
	x.uint32(1)  // a message follows
	x.string(message)
	x.uint32(2) // level, and more that nobody reads
	return packet{socket.Header{Type: kind, Status: socket.StatusError}, x}
}

// withDaemon opens a stream to a daemon that greets as usual and then follows the script.
func withDaemon(ctx context.Context, answer func(packet) []packet) (*stream, error) {
	return openStream(ctx, func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		go daemon{far, func(p packet) []packet {
			switch p.header.Procedure {
			case procAuthList:
				return []packet{reply(0, 0, 0, 1, 0, 0, 0, authNone)}
			case procConnectOpen:
				return []packet{reply()}
			}
			return answer(p)
		}}.run()
		return near, nil
	})
}

var volume = rpc.StorageVol{Pool: "naru", Name: "a", Key: "/var/lib/naru/disks/a"}

// libvirtd sends the first bytes of a download, and its end, before or after its answer.
func TestADownloadIsWholeWhereverItsAnswerComes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.StringN(1, 40, -1), 0, 8).Draw(t, "parts")
		var script []packet
		for _, part := range parts {
			script = append(script, data(part))
		}
		script = append(script, data(""))
		if rapid.Bool().Draw(t, "end comes twice") {
			script = append(script, data(""))
		}
		at := rapid.IntRange(0, len(script)).Draw(t, "answer at")
		script = append(script[:at:at], append([]packet{reply()}, script[at:]...)...)
		closed := false
		s, err := withDaemon(context.Background(), func(p packet) []packet {
			if p.header.Type == socket.Call {
				return script
			}
			closed = p.header.Type == socket.Stream && p.header.Status == socket.StatusOK
			return []packet{finished()}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		got, err := s.download(context.Background(), volume, 0, 1000)
		if err != nil || string(got) != strings.Join(parts, "") {
			t.Fatalf("got %q, %v", got, err)
		}
		if !closed {
			t.Fatal("the far side was not told that it is over")
		}
	})
}

func TestAnUploadArrivesWholeAndInOrder(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), streamPart/8)
	var arrived bytes.Buffer
	s, err := withDaemon(t.Context(), func(p packet) []packet {
		switch {
		case p.header.Type == socket.Call:
			return []packet{reply()}
		case p.header.Status == socket.StatusContinue:
			arrived.Write(p.payload)
			return []packet{}
		default:
			return []packet{finished()}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.upload(t.Context(), volume, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(arrived.Bytes(), content) {
		t.Fatalf("%d of %d bytes arrived", arrived.Len(), len(content))
	}
}

func TestAFailureOfTheFarSideIsTheTransfersError(t *testing.T) {
	const full = "cannot write data: No space left on device"
	for name, answer := range map[string]func(packet) []packet{
		"at once":    func(packet) []packet { return []packet{failure(socket.Reply, rpc.ErrOperationFailed, full)} },
		"at the end": refuseFrom(full, func(p packet) bool { return p.header.Status == socket.StatusOK && p.header.Type == socket.Stream }),
		"on the way": refuseFrom(full, func(p packet) bool { return p.header.Type == socket.Stream }),
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			s, err := withDaemon(t.Context(), answer)
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			err = s.upload(t.Context(), volume, bytes.NewReader(make([]byte, 3*streamPart)))
			if !is(err, rpc.ErrOperationFailed) || !strings.Contains(err.Error(), full) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// refuseFrom takes everything until a packet after which it sends an error, once.
func refuseFrom(message string, last func(packet) bool) func(packet) []packet {
	refused := false
	return func(p packet) []packet {
		switch {
		case refused:
			return []packet{}
		case last(p):
			refused = true
			return []packet{failure(socket.Stream, rpc.ErrOperationFailed, message)}
		case p.header.Type == socket.Call:
			return []packet{reply()}
		}
		return []packet{}
	}
}

func TestABrokenConnectionIsATemporaryError(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s, err := withDaemon(t.Context(), func(packet) []packet { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.download(t.Context(), volume, 0, 10); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %v", err)
	}
}

func TestASourceThatFailsIsTheUploadsError(t *testing.T) {
	s, err := withDaemon(t.Context(), func(packet) []packet { return []packet{reply()} })
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	broken := errors.New("broken off")
	if err := s.upload(t.Context(), volume, io.MultiReader(strings.NewReader("some"), failing{broken})); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestATransferEndsWithItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		s, err := withDaemon(ctx, func(packet) []packet { return []packet{} })
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		began := time.Now()
		if _, err := s.download(ctx, volume, 0, 10); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Fatalf("it took %v", took)
		}
	})
}

func TestTheWaysToLogIn(t *testing.T) {
	for name, test := range map[string]struct {
		list []byte
		asks bool
		fine bool
	}{
		"none":          {[]byte{0, 0, 0, 1, 0, 0, 0, 0}, false, true},
		"polkit":        {[]byte{0, 0, 0, 1, 0, 0, 0, 2}, true, true},
		"none is first": {[]byte{0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0}, false, true},
		"sasl":          {[]byte{0, 0, 0, 1, 0, 0, 0, 1}, false, false},
		"nonsense":      {[]byte{0, 0, 0, 9}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			asked := false
			s, err := openStream(t.Context(), func(context.Context) (net.Conn, error) {
				near, far := net.Pipe()
				go daemon{far, func(p packet) []packet {
					asked = asked || p.header.Procedure == procAuthPolkit
					if p.header.Procedure == procAuthList {
						return []packet{reply(test.list...)}
					}
					return []packet{reply()}
				}}.run()
				return near, nil
			})
			if (err == nil) != test.fine || asked != test.asks {
				t.Fatalf("asked for polkit: %v, %v", asked, err)
			}
			if err == nil {
				s.close()
			}
		})
	}
}

func FuzzWhatTheFarSideSays(f *testing.F) {
	f.Add(failure(socket.Reply, rpc.ErrNoDomain, "no such domain").payload)
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, payload []byte) {
		if remoteError(payload) == nil {
			t.Fatal("an error that is none")
		}
		if ways, err := authMethods(payload); err == nil && 4+4*len(ways) != len(payload) {
			t.Fatalf("%d ways in %d bytes", len(ways), len(payload))
		}
	})
}
