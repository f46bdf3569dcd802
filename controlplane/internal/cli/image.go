package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var imageColumns = []column[*apiv1.Image]{
	{head: "NAME", value: (*apiv1.Image).GetName},
	{head: "OS", value: (*apiv1.Image).GetOs},
	{head: "GRADE", value: func(m *apiv1.Image) string { return lower(m.GetGrade()) }},
	{head: "FORMAT", value: func(m *apiv1.Image) string { return lower(m.GetFormat()) }},
	{head: "SHA256", value: func(m *apiv1.Image) string { return shorten(m.GetSha256(), 12) }},
	{head: "DESCRIPTION", value: (*apiv1.Image).GetDescription, text: true},
	{head: "ID", value: (*apiv1.Image).GetId, wide: true},
	{head: "AGE", value: func(m *apiv1.Image) string { return age(m.GetCreatedAt()) }, wide: true},
}

func (a *app) imageNoun() noun[*apiv1.Image] {
	return noun[*apiv1.Image]{
		name: "image", plural: "images", short: "Images of operating systems", in: []string{}, filter: "os~debian", columns: imageColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Image, string, error) {
			r, err := c.Images.ListImages(ctx, &apiv1.ListImagesRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetImages(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Image, error) {
			r, err := c.Images.GetImage(ctx, &apiv1.GetImageRequest{Image: name})
			return r.GetImage(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Image], error), error) {
			s, err := c.Images.WatchImages(ctx, &apiv1.WatchImagesRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchImagesResponse) change[*apiv1.Image] {
				return change[*apiv1.Image]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetImage()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Images.DeleteImage(ctx, &apiv1.DeleteImageRequest{Image: name})
			return r.GetOperation(), err
		},
		make: "Make an image known",
		fields: func(f *pflag.FlagSet, m *apiv1.Image) {
			f.StringVar(&m.Os, "os", "", "debian-12, rocky-9 …")
			f.Uint32Var(&m.MinMemoryMib, "min-memory-mib", 0, "a flavor must have at least this")
			f.Uint32Var(&m.MinDiskGib, "min-disk-gib", 0, "a flavor must have at least this")
			f.StringVar(&m.Description, "description", "", "for people")
			wordFlag(f, m, "grade", " (open): of what is in its bits")
		},
		fixed: func(f *pflag.FlagSet, m *apiv1.Image) {
			f.Func("file", "take the digest of this `file`; the bits themselves go to each zone's image store", func(path string) (err error) {
				m.Sha256, err = digestOf(path)
				return err
			})
			f.StringVar(&m.Sha256, "sha256", "", "digest of the file, instead of --file")
			m.Format = apiv1.Image_QCOW2
			wordFlag(f, m, "format", "; never probed")
		},
		create: func(ctx context.Context, c *client.Client, m *apiv1.Image) (*apiv1.Operation, error) {
			r, err := c.Images.CreateImage(ctx, &apiv1.CreateImageRequest{Image: m})
			return r.GetOperation(), err
		},
		update: func(ctx context.Context, c *client.Client, m *apiv1.Image, mask *fieldmaskpb.FieldMask, _ scope) (*apiv1.Image, error) {
			r, err := c.Images.UpdateImage(ctx, &apiv1.UpdateImageRequest{Image: m, UpdateMask: mask})
			return r.GetImage(), err
		},
	}
}

func (a *app) image() *cobra.Command {
	return command(a, a.imageNoun())
}

// digestOf returns the SHA-256 of a file, lower-case hexadecimal.
func digestOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func shorten(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
