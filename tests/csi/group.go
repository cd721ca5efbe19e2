package main

import (
	"context"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// groupController makes snapshots of several volumes at one instant: the storage is locked meanwhile, though not
// against what pods write.
type groupController struct {
	csi.UnimplementedGroupControllerServer
	storage storage
}

func (groupController) GroupControllerGetCapabilities(context.Context, *csi.GroupControllerGetCapabilitiesRequest) (*csi.GroupControllerGetCapabilitiesResponse, error) {
	can := csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT
	return &csi.GroupControllerGetCapabilitiesResponse{Capabilities: []*csi.GroupControllerServiceCapability{{
		Type: &csi.GroupControllerServiceCapability_Rpc{Rpc: &csi.GroupControllerServiceCapability_RPC{Type: can}},
	}}}, nil
}

func (g groupController) CreateVolumeGroupSnapshot(ctx context.Context, request *csi.CreateVolumeGroupSnapshotRequest) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	named, err := behaviourName(request.GetParameters())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	behaviour, err := g.storage.behaviour(named)
	if err != nil {
		return nil, err
	}
	if behaviour.FailCreateSnapshot != "" {
		return nil, status.Error(codes.Internal, behaviour.FailCreateSnapshot)
	}
	wanted := group{
		ID:        id("group", request.GetName()),
		Name:      request.GetName(),
		Behaviour: named,
		Secret:    digest(request.GetSecrets()),
	}
	made, err := g.groupOnce(wanted, request.GetSourceVolumeIds())
	if err != nil {
		return nil, err
	}
	if err := g.storage.wait(ctx, named, made.Created); err != nil {
		return nil, err
	}
	answer, err := g.describe(made)
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: answer}, nil
}

// groupOnce makes a group snapshot, or gives the one of that name that is there.
func (g groupController) groupOnce(wanted group, volumes []string) (*group, error) {
	unlock, err := g.storage.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	found, err := g.storage.group(wanted.ID)
	if found != nil || err != nil {
		return found, err
	}
	wanted.Created = time.Now()
	for _, source := range volumes {
		name := wanted.Name + "/" + source
		member, err := g.storage.take(snapshot{
			ID:           id("snap", name),
			Name:         name,
			SourceVolume: source,
			Group:        wanted.ID,
			Behaviour:    wanted.Behaviour,
			Secret:       wanted.Secret,
		})
		if err != nil {
			// All or none.
			for _, made := range wanted.Snapshots {
				if err := g.storage.remove("snapshots", made); err != nil {
					return nil, err
				}
			}
			return nil, err
		}
		wanted.Snapshots = append(wanted.Snapshots, member.ID)
	}
	if err := g.storage.create("groups", "group.json", wanted.ID, wanted, nil); err != nil {
		return nil, err
	}
	return &wanted, nil
}

func (g groupController) describe(of *group) (*csi.VolumeGroupSnapshot, error) {
	answer := &csi.VolumeGroupSnapshot{
		GroupSnapshotId: of.ID,
		CreationTime:    timestamppb.New(of.Created),
		ReadyToUse:      true,
	}
	for _, id := range of.Snapshots {
		member, err := g.storage.snapshot(id)
		if err != nil {
			return nil, err
		}
		if member == nil {
			return nil, status.Errorf(codes.Internal, "snapshot %s of group %s is gone", id, of.ID)
		}
		described, err := g.storage.describe(member)
		if err != nil {
			return nil, err
		}
		answer.Snapshots = append(answer.Snapshots, described)
		answer.ReadyToUse = answer.ReadyToUse && described.ReadyToUse
	}
	return answer, nil
}

func (g groupController) GetVolumeGroupSnapshot(_ context.Context, request *csi.GetVolumeGroupSnapshotRequest) (*csi.GetVolumeGroupSnapshotResponse, error) {
	found, err := g.storage.group(request.GetGroupSnapshotId())
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, status.Errorf(codes.NotFound, "no group snapshot %s", request.GetGroupSnapshotId())
	}
	if err := found.check(request.GetSnapshotIds()); err != nil {
		return nil, err
	}
	answer, err := g.describe(found)
	if err != nil {
		return nil, err
	}
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: answer}, nil
}

func (g groupController) DeleteVolumeGroupSnapshot(_ context.Context, request *csi.DeleteVolumeGroupSnapshotRequest) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	unlock, err := g.storage.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	found, err := g.storage.group(request.GetGroupSnapshotId())
	if err != nil {
		return nil, err
	}
	if found == nil {
		return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
	}
	behaviour, err := g.storage.behaviour(found.Behaviour)
	if err != nil {
		return nil, err
	}
	if behaviour.FailDeleteSnapshot != "" {
		return nil, status.Error(codes.Internal, behaviour.FailDeleteSnapshot)
	}
	if found.Secret != digest(request.GetSecrets()) {
		return nil, status.Errorf(codes.Unauthenticated, "group snapshot %s was made with other secrets", found.ID)
	}
	if err := found.check(request.GetSnapshotIds()); err != nil {
		return nil, err
	}
	for _, member := range found.Snapshots {
		if err := g.storage.remove("snapshots", member); err != nil {
			return nil, err
		}
	}
	if err := g.storage.remove("groups", found.ID); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
}

// check refuses members that are not the group's, as the specification asks; none means that the caller lost them.
func (g group) check(members []string) error {
	if len(members) > 0 && !slices.Equal(slices.Sorted(slices.Values(members)), slices.Sorted(slices.Values(g.Snapshots))) {
		return status.Errorf(codes.InvalidArgument, "group snapshot %s has the snapshots %v, not %v", g.ID, g.Snapshots, members)
	}
	return nil
}
