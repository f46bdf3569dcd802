package problem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestEveryCodeHasATitleAndAPlaceAtEachEdge(t *testing.T) {
	for code, e := range table {
		if e.title == "" || e.http < 400 || e.grpc == codes.OK || e.exit < 1 || e.exit > 7 {
			t.Errorf("%s: %+v is not complete", code, e)
		}
		if string(code) != strings.ToUpper(string(code)) {
			t.Errorf("%s is not in capitals", code)
		}
	}
}

func TestAnErrorCrossesGRPCUnchanged(t *testing.T) {
	want := New(NoHostFits, "4 hosts looked at: 3 lack memory", "Choose a smaller flavor.").With("flavor", "too large")
	got := FromStatus(ToStatus(fmt.Errorf("place: %w", want)))
	if !Is(got, NoHostFits) || Of(got).GetNext() != want.Problem.GetNext() || Of(got).GetErrors()[0].GetField() != "flavor" {
		t.Fatalf("got %v", Of(got))
	}
}

func TestTheTextOfAForeignErrorStaysInside(t *testing.T) {
	err := fmt.Errorf("open /etc/secret: %w", io.ErrUnexpectedEOF)
	p := Of(err)
	if p.GetCode() != string(Internal) || strings.Contains(p.String(), "secret") {
		t.Fatalf("got %v", p)
	}
	if !errors.Is(From(err), io.ErrUnexpectedEOF) {
		t.Fatal("the cause is lost")
	}
}

func TestContextErrorsSayWhatHappened(t *testing.T) {
	if Of(context.DeadlineExceeded).GetCode() != string(Timeout) || Of(context.Canceled).GetCode() != string(Cancelled) {
		t.Fatal("a context's end is not told apart")
	}
}

func TestABareStatusOfALibraryGetsItsCode(t *testing.T) {
	if !Is(FromStatus(status.Error(codes.Unavailable, "no broker answers")), Unavailable) {
		t.Fatal("UNAVAILABLE is lost")
	}
}

func TestNilStaysNil(t *testing.T) {
	if Of(nil) != nil || ToStatus(nil) != nil || FromStatus(nil) != nil || FromProto(nil) != nil {
		t.Fatal("nil became something")
	}
}

func TestAProblemFromTheWireIsACopy(t *testing.T) {
	p := &apiv1.Problem{Code: "IN_USE"}
	err := FromProto(p)
	p.Code = "X"
	if !Is(err, InUse) {
		t.Fatal("the error shares the message")
	}
}

func TestNewfKeepsItsCause(t *testing.T) {
	if err := Newf(DriverFailed, "", "define: %w", io.EOF); !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "EOF") {
		t.Fatalf("got %v", err)
	}
}
