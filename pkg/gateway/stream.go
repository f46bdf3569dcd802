package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// writeTime is how long a reader may take to take one event before it is cut off.
const writeTime = 30 * time.Second

// change is what every watch answers with.
type change interface {
	proto.Message
	GetType() apiv1.WatchType_Value
	GetRevision() string
}

// stream serves a watch as server-sent events: id is the revision, event is bookmark, put or delete, data the message as
// JSON. Nothing is sent before the first message has come, so that a refusal is a problem with its own status. What ends a
// stream later comes as an event named error whose data is the problem.
func (g *gateway) stream(rt *route) runtime.HandlerFunc {
	desc := &grpc.StreamDesc{ServerStreams: true, StreamName: rt.method[strings.LastIndexByte(rt.method, '/')+1:]}
	none := utilities.NewDoubleArray(nil)
	return func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
		in := rt.input.New().Interface()
		if err := runtime.PopulateQueryParameters(in, r.URL.Query(), none); err != nil {
			g.refuse(w, r, g.readable(r, invalid(err)))
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		ctx, err := runtime.AnnotateContext(ctx, g.mux, r, rt.method)
		if err != nil {
			g.refuse(w, r, g.readable(r, err))
			return
		}
		first := rt.output.New().Interface()
		calls, err := g.open(ctx, desc, rt, in)
		if err == nil {
			err = calls.RecvMsg(first)
		}
		if err != nil {
			g.refuse(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no")
		g.events(w, r, calls, rt, first)
	}
}

// open begins the call and sends its one request.
func (g *gateway) open(ctx context.Context, desc *grpc.StreamDesc, rt *route, in proto.Message) (grpc.ClientStream, error) {
	calls, err := g.conn.NewStream(ctx, desc, rt.method)
	if err != nil {
		return nil, err
	}
	if err := calls.SendMsg(in); err != nil && !errors.Is(err, io.EOF) { // io.EOF: the answer tells why
		return nil, err
	}
	return calls, calls.CloseSend()
}

// events copies messages to the reader until one side ends.
func (g *gateway) events(w http.ResponseWriter, r *http.Request, calls grpc.ClientStream, rt *route, m proto.Message) {
	control := http.NewResponseController(w)
	var buf []byte
	for {
		var err error
		if buf, err = g.appendEvent(buf[:0], m); err == nil {
			_ = control.SetWriteDeadline(time.Now().Add(writeTime)) // not every writer has deadlines
			if _, err := w.Write(buf); err != nil {
				return
			}
			if control.Flush() != nil {
				return
			}
			m = rt.output.New().Interface()
			err = calls.RecvMsg(m)
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			if data, err := json.Marshal(g.body(r, err)); err == nil {
				_, _ = w.Write([]byte("event: error\ndata: " + string(data) + "\n\n")) // the stream ends here either way
			}
			return
		}
	}
}

// appendEvent writes one message as a server-sent event.
func (g *gateway) appendEvent(b []byte, m proto.Message) ([]byte, error) {
	if c, ok := m.(change); ok {
		b = append(b, "id: "+c.GetRevision()+"\nevent: "+strings.ToLower(c.GetType().String())+"\n"...)
	}
	b, err := g.json.encoder.Append(append(b, "data: "...), m)
	return append(b, "\n\n"...), err
}
