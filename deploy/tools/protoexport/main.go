// Command protoexport writes the .proto files that Naru's own import, out of the descriptors that the pinned Go modules
// carry, so that the schema and the Go code linked with it are of one version and no registry is asked.
//
//	protoexport DIR
package main

import (
	"fmt"
	"os"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/v2/protoprint"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: protoexport DIR")
		os.Exit(2)
	}
	printer := protoprint.Printer{SortElements: true}
	err := printer.PrintProtosToFileSystem([]protoreflect.FileDescriptor{
		validate.File_buf_validate_validate_proto,
		annotations.File_google_api_annotations_proto,
		annotations.File_google_api_http_proto,
		annotations.File_google_api_field_behavior_proto,
	}, os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "protoexport:", err)
		os.Exit(1)
	}
}
