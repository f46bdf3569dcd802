package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var imageColumns = []column[*apiv1.Image]{
	{head: "NAME", value: (*apiv1.Image).GetName},
	{head: "OS", value: (*apiv1.Image).GetOs},
	{head: "FORMAT", value: func(m *apiv1.Image) string { return lower(m.GetFormat()) }},
	{head: "SHA256", value: func(m *apiv1.Image) string { return shorten(m.GetSha256(), 12) }},
	{head: "DESCRIPTION", value: (*apiv1.Image).GetDescription},
	{head: "ID", value: (*apiv1.Image).GetId, wide: true},
	{head: "AGE", value: func(m *apiv1.Image) string { return age(m.GetCreatedAt()) }, wide: true},
}

func (a *app) imageNoun() noun[*apiv1.Image] {
	return noun[*apiv1.Image]{
		name: "image", plural: "images", short: "Images of operating systems", in: []string{}, columns: imageColumns,
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
			return received(s, err, func(m *apiv1.WatchImagesResponse) change[*apiv1.Image] {
				return change[*apiv1.Image]{m.GetType(), m.GetRevision(), m.GetImage()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Images.DeleteImage(ctx, &apiv1.DeleteImageRequest{Image: name})
			return r.GetOperation(), err
		},
	}
}

func (a *app) image() *cobra.Command {
	return command(a, a.imageNoun(), a.createImage())
}

func (a *app) createImage() *cobra.Command {
	var w waiting
	m := &apiv1.Image{}
	var file, format string
	cmd := &cobra.Command{Use: "create NAME", Short: "Make an image known", Args: oneArgument}
	cmd.Flags().StringVar(&file, "file", "", "take the digest of this file; the bits themselves go to each zone's image store")
	cmd.Flags().StringVar(&m.Sha256, "sha256", "", "digest of the file, instead of --file")
	cmd.Flags().StringVar(&format, "format", "qcow2", "qcow2 or raw; never probed")
	cmd.Flags().StringVar(&m.Os, "os", "", "debian-12, rocky-9 …")
	cmd.Flags().Uint32Var(&m.MinMemoryMib, "min-memory-mib", 0, "a flavor must have at least this")
	cmd.Flags().Uint32Var(&m.MinDiskGib, "min-disk-gib", 0, "a flavor must have at least this")
	cmd.Flags().StringVar(&m.Description, "description", "", "for people")
	w.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			m.Name = args[0]
			var ok bool
			if m.Format, ok = enumOf(apiv1.Image_Format_value, format, apiv1.Image_Format(0)); !ok {
				return usagef("--format %s: it is qcow2 or raw", format)
			}
			if file != "" {
				var err error
				if m.Sha256, err = digestOf(file); err != nil {
					return usagef("%v", err)
				}
			}
			r, err := c.Images.CreateImage(ctx, &apiv1.CreateImageRequest{Image: m})
			if err != nil {
				return err
			}
			return a.finish(ctx, c, r.GetOperation(), w)
		})
	}
	return cmd
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
