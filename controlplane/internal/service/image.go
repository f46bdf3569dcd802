package service

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/grade"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type imageService struct {
	apiv1.UnimplementedImageServiceServer
	*Service
}

func imageChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Image) proto.Message {
	return &apiv1.WatchImagesResponse{Type: kind, Revision: revision, Image: m}
}

func (s imageService) ListImages(ctx context.Context, r *apiv1.ListImagesRequest) (*apiv1.ListImagesResponse, error) {
	items, next, err := s.images.list(ctx, r, place{})
	return &apiv1.ListImagesResponse{Images: items, NextPageToken: next}, err
}

func (s imageService) GetImage(ctx context.Context, r *apiv1.GetImageRequest) (*apiv1.GetImageResponse, error) {
	m, err := s.images.get(ctx, r.GetImage(), place{})
	return &apiv1.GetImageResponse{Image: m}, err
}

func (s imageService) WatchImages(r *apiv1.WatchImagesRequest, stream grpc.ServerStreamingServer[apiv1.WatchImagesResponse]) error {
	return s.images.watch(r, place{}, stream)
}

func (s imageService) CreateImage(ctx context.Context, r *apiv1.CreateImageRequest) (*apiv1.CreateImageResponse, error) {
	result, err := s.images.create(ctx, r, r.GetImage(), func(_ *state.Tx, i *apiv1.Image) (state.Scope, error) {
		i.Grade = grade.Highest(i.GetGrade())
		if i.GetFormat() == apiv1.Image_FORMAT_UNSPECIFIED {
			i.Format = apiv1.Image_QCOW2
		}
		return nil, nil
	}, func(c *commandv1.Command, m *apiv1.Image) {
		c.Body = &commandv1.Command_CreateImage{CreateImage: &commandv1.CreateImage{Image: m}}
	})
	op, err := s.images.made(ctx, result, err)
	return &apiv1.CreateImageResponse{Operation: op}, err
}

func (s imageService) UpdateImage(ctx context.Context, r *apiv1.UpdateImageRequest) (*apiv1.UpdateImageResponse, error) {
	m, err := s.images.update(ctx, r, r.GetImage(), r.GetUpdateMask(), place{}, nil, func(c *commandv1.Command, m *apiv1.Image, expected string) {
		c.Body = &commandv1.Command_UpdateImage{UpdateImage: &commandv1.UpdateImage{Image: m, ExpectedRevision: expected}}
	})
	return &apiv1.UpdateImageResponse{Image: m}, err
}

func (s imageService) DeleteImage(ctx context.Context, r *apiv1.DeleteImageRequest) (*apiv1.DeleteImageResponse, error) {
	op, err := s.images.remove(ctx, r, r.GetImage(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteImage{DeleteImage: d}
	})
	return &apiv1.DeleteImageResponse{Operation: op}, err
}
