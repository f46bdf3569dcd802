package libvirt

import (
	"encoding/binary"
	"errors"
	"fmt"

	rpc "github.com/digitalocean/go-libvirt"
)

// transfer encodes the arguments of an upload or a download; a length of 0 is all.
func transfer(volume rpc.StorageVol, offset, length uint64) []byte {
	var x xdr
	x.string(volume.Pool)
	x.string(volume.Name)
	x.string(volume.Key)
	x.uint64(offset)
	x.uint64(length)
	x.uint32(0) // flags
	return x
}

// xdr is a message in the form of RFC 4506, as far as the calls above need it.
type xdr []byte

func (x *xdr) uint32(n uint32) { *x = binary.BigEndian.AppendUint32(*x, n) }
func (x *xdr) uint64(n uint64) { *x = binary.BigEndian.AppendUint64(*x, n) }
func (x *xdr) string(s string) {
	x.uint32(uint32(len(s)))
	*x = append(*x, s...)
	*x = append(*x, make([]byte, -len(s)&3)...)
}

// authMethods decodes an array of numbers.
func authMethods(payload []byte) ([]uint32, error) {
	if len(payload) < 4 || uint64(len(payload)-4) != 4*uint64(binary.BigEndian.Uint32(payload)) {
		return nil, fmt.Errorf("a list of ways to log in of %d bytes", len(payload))
	}
	var ways []uint32
	for at := 4; at < len(payload); at += 4 {
		ways = append(ways, binary.BigEndian.Uint32(payload[at:]))
	}
	return ways, nil
}

// remoteError decodes the beginning of a remote_error: code, domain, message.
func remoteError(payload []byte) error {
	if len(payload) < 16 || binary.BigEndian.Uint32(payload[8:]) == 0 {
		return errors.New("libvirt failed and did not say why")
	}
	code, length := binary.BigEndian.Uint32(payload), binary.BigEndian.Uint32(payload[12:])
	message := payload[16:]
	return rpc.Error{Code: code, Message: string(message[:min(uint64(length), uint64(len(message)))])}
}
