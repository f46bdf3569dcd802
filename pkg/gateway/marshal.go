package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
)

// jsonMarshaler is how bodies are read and answers written: JSON, and strict. Unknown fields, a field given twice and
// bytes behind the value are refused.
type jsonMarshaler struct {
	encoder *Encoder
	strict  runtime.JSONPb
}

func (*jsonMarshaler) ContentType(any) string { return "application/json" }

// Marshal writes a message; the gateway hands it nothing else.
func (j *jsonMarshaler) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("a %T is no message", v)
	}
	b, err := j.encoder.Append(nil, m)
	return append(b, '\n'), err
}

// Unmarshal reads one JSON value into v, which is a message or a pointer to one.
func (j *jsonMarshaler) Unmarshal(data []byte, v any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return io.EOF
	}
	d := json.NewDecoder(bytes.NewReader(data))
	var value json.RawMessage
	if err := d.Decode(&value); err != nil {
		return invalidBody(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return problem.Newf(problem.Invalid, "Send one JSON object and nothing behind it.",
			"the body has more behind its JSON value, from byte %d on", d.InputOffset())
	}
	if value[0] != '{' {
		return problem.New(problem.Invalid, "the body is no JSON object", "Send a JSON object.")
	}
	if err := j.strict.Unmarshal(value, v); err != nil {
		return invalidBody(err)
	}
	return nil
}

// NewDecoder returns a decoder that takes the whole of r for one value. An empty body decodes as io.EOF, which the
// generated code takes for "no fields".
func (j *jsonMarshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		return j.Unmarshal(data, v)
	})
}

func (j *jsonMarshaler) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		b, err := j.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
}

var (
	unknownField = regexp.MustCompile(`unknown field "([^"]{1,128})"`)
	badValue     = regexp.MustCompile(`invalid value for (\w+) field (\w{1,128}): (\{?)`)
)

// invalidBody turns a decoder's error into a problem that names the field where the decoder does.
func invalidBody(err error) error {
	// protojson varies the blank behind its prefix, lest anyone compare its errors.
	text := strings.TrimSpace(strings.ReplaceAll(strings.TrimPrefix(err.Error(), "proto:"), "\u00a0", " "))
	e := problem.New(problem.Invalid, "the body cannot be read: "+text, "Correct the body; GET /openapi.json has its form.")
	if m := unknownField.FindStringSubmatch(text); m != nil {
		e.With(m[1], "is not a field here")
	}
	if m := badValue.FindStringSubmatch(text); m != nil {
		if e.With(m[2], "has a value of the wrong kind"); m[1] == "string" && m[3] != "" {
			e.Problem.Next = fmt.Sprintf(`Send a text. An object that a text holds has its quotes escaped: "%s":"{\"name\":\"value\"}"; jq writes it with tojson.`, m[2])
		}
	}
	return e
}
