package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var commentColumns = []column[*apiv1.Comment]{
	{head: "AT", value: func(m *apiv1.Comment) string { return local(m.GetAt()) }},
	{head: "AUTHOR", value: (*apiv1.Comment).GetAuthor},
	{head: "TEXT", value: (*apiv1.Comment).GetText, text: true},
	{head: "FILE", value: func(m *apiv1.Comment) string {
		switch {
		case m.GetDroppedBy() != "":
			return m.GetFile() + ", taken away by " + m.GetDroppedBy()
		case m.GetDroppedAt() != nil:
			return m.GetFile() + ", not kept since " + m.GetDroppedAt().AsTime().Local().Format(time.DateOnly)
		}
		return m.GetFile()
	}},
	{head: "SIZE", value: func(m *apiv1.Comment) string {
		if m.GetFile() == "" {
			return ""
		}
		return fmt.Sprint(m.GetSize())
	}},
	{head: "SHA256", value: func(m *apiv1.Comment) string { return fmt.Sprintf("%x", m.GetSha256()) }, wide: true},
	{head: "ID", value: (*apiv1.Comment).GetId, wide: true},
}

func (a *app) comment() *cobra.Command {
	var text string
	cmd := &cobra.Command{Use: "comment REQUEST --text TEXT", Short: "Say something of a request", Args: oneArgument}
	cmd.Flags().StringVar(&text, "text", "", "what to say, or @FILE")
	cmd.MarkFlagRequired("text")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			said, err := a.argument(text)
			if err != nil {
				return err
			}
			_, err = c.Requests.CommentRequest(ctx, &apiv1.CommentRequestRequest{Request: args[0], Text: said})
			return err
		})
	}
	return cmd
}

func (a *app) attach() *cobra.Command {
	var file, text, mediaType string
	cmd := &cobra.Command{
		Use: "attach REQUEST --file FILE", Short: "Add a file to a request that is being written", Args: oneArgument,
		Long: `Add a file of at most 256 KiB, under a name that no other file of the request has. Whoever adds one has helped write the request, and
does not decide on it.`,
	}
	f := cmd.Flags()
	f.StringVarP(&file, "file", "f", "", "the `file`")
	f.StringVar(&text, "text", "", "what it is")
	f.StringVar(&mediaType, "media-type", "", "application/pdf, say")
	cmd.MarkFlagRequired("file")
	a.completeArguments(cmd, "request", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			content, err := os.ReadFile(file)
			if err != nil {
				return usagef("--file %s: %v", file, err)
			}
			_, err = c.Requests.AttachToRequest(ctx, &apiv1.AttachToRequestRequest{Request: args[0], File: filepath.Base(file), MediaType: mediaType, Text: text, Content: content})
			return err
		})
	}
	return cmd
}

func (a *app) detach() *cobra.Command {
	cmd := &cobra.Command{
		Use: "detach REQUEST FILE", Short: "Take a file away from a request that is being written", Args: arguments(2, 2),
		Long: `Take a file away, by its name, or by its id where several have the name. What it held is not kept; that it was there, its digest and who took
it away are. To replace a file, take it away and attach the other one. Whoever takes one away has helped write the request, and does not
decide on it.`,
		Example: "  naru request detach r-7 plan.pdf\n  naru request attach r-7 --file plan.pdf",
	}
	a.completeArguments(cmd, "request", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			_, err := c.Requests.DetachFromRequest(ctx, &apiv1.DetachFromRequestRequest{Request: args[0], File: args[1]})
			return err
		})
	}
	return cmd
}

// commentsOf reads all that was said of a request, the oldest first.
func commentsOf(ctx context.Context, c *client.Client, name string) (all []*apiv1.Comment, err error) {
	for token := ""; ; {
		r, err := c.Requests.ListComments(ctx, &apiv1.ListCommentsRequest{Request: name, PageSize: 1000, PageToken: token})
		if err != nil {
			return nil, err
		}
		all = append(all, r.GetComments()...)
		if token = r.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

func (a *app) comments() *cobra.Command {
	cmd := &cobra.Command{Use: "comments REQUEST", Short: "Show what was said of a request, and its files", Args: oneArgument}
	a.completeArguments(cmd, "request", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			all, err := commentsOf(ctx, c, args[0])
			if err != nil {
				return err
			}
			return printList(a, commentColumns, all)
		})
	}
	return cmd
}

// attachment writes a file of a request to where the caller says.
func (a *app) attachment() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "attachment REQUEST FILE", Short: "Fetch a file that was added to a request", Args: arguments(2, 2),
		Long:    "Fetch a file that was added to a request, by its name, or by its id where several have the name. A file that is there already is not overwritten.",
		Example: "  naru request attachment r-7 plan.pdf --to plan.pdf",
	}
	cmd.Flags().StringVar(&to, "to", "", "the `file` to write; without it, standard output")
	a.completeArguments(cmd, "request", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			all, err := commentsOf(ctx, c, args[0])
			if err != nil {
				return err
			}
			var names, ids []string
			for _, m := range all {
				if m.GetFile() == "" || m.GetDroppedBy() != "" && m.GetId() != args[1] {
					continue
				}
				if names = append(names, m.GetFile()); m.GetFile() == args[1] || m.GetId() == args[1] {
					ids = append(ids, m.GetId())
				}
			}
			switch {
			case len(names) == 0:
				return usagef("request %s has no files", args[0])
			case len(ids) == 0:
				return usagef("request %s has no file %s; it has %s", args[0], args[1], strings.Join(names, ", "))
			case len(ids) > 1:
				return usagef("request %s has %d files named %s; name one by its id: naru request comments %[1]s -o wide", args[0], len(ids), args[1])
			}
			r, err := c.Requests.GetAttachment(ctx, &apiv1.GetAttachmentRequest{Request: args[0], Comment: ids[0]})
			if err != nil {
				return err
			}
			if to == "" {
				_, err = a.out.Write(r.GetContent())
				return err
			}
			f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return usagef("--to %s: %v", to, err)
			}
			if _, err := f.Write(r.GetContent()); err != nil {
				f.Close()
				return err
			}
			return f.Close()
		})
	}
	return cmd
}
